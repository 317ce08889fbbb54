"""The learning rate as a pure function of the step: linear warm-up, then half a cosine.

References:
    Goyal et al., Accurate, Large Minibatch SGD, 2017 (warm-up).
    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017.
"""

import math

WARMUP_SHARE = 0.05  # of all steps
FINAL_SHARE = 0.01  # of the peak, at the last step


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """Learning rate of one optimizer step.

    Args:
        step: counted from 0 over the whole training.
        total_steps: steps of the whole training; later steps keep the last value.
        peak: the rate at the end of the warm-up.

    Returns:
        A rate in (0, peak].
    """
    warmup = max(1, round(WARMUP_SHARE * total_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup + 1) / max(1, total_steps - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)
