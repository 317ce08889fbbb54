"""Counts in printed lines."""


def counted(count: int, noun: str) -> str:
    """``1 face``, ``2 faces``: a count with its noun, whose plural takes an s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
