"""Predictors: 112 x 112 crops in, landmarks, pose and action units out, on any backend."""
