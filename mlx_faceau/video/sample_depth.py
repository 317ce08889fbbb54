"""How many bits are in use of samples that cameras and scanners store in 16."""

_DEPTHS = (8, 10, 12, 14, 16)
_OVERSHOOT = 1.03  # of samples beyond their bits, from lossy compression


def bits_in_use(most: float) -> int:
    """The least of 8, 10, 12, 14 and 16 bits that hold the largest sample, about."""
    return next(depth for depth in _DEPTHS if most < (1 << depth) * _OVERSHOOT)
