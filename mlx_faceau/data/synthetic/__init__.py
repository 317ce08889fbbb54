"""Synthetic people: shapes, painted faces, labelled by construction."""
