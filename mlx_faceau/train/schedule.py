"""What changes with the step, as pure functions of it: learning rate and decay of the average.

The learning rate rises in a line, then falls along half a cosine.

References:
    Goyal et al., Accurate, Large Minibatch SGD, 2017 (warm-up).
    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017.
    Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992 (the average).
"""

import math

WARMUP_SHARE = 0.05  # of all steps
FINAL_SHARE = 0.01  # of the peak, at the last step


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """Learning rate in (0, peak] of a step, counted from 0; after the last it stays."""
    warmup = max(1, round(WARMUP_SHARE * total_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup + 1) / max(1, total_steps - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)


def averaging_decay(step: int, decay: float) -> float:
    """Share of the old average of the weights that stays after one optimizer step.

    Early on it is small, so that the average forgets the weights that nothing has trained yet.
    """
    return min(decay, (1 + step) / (10 + step))
