"""The learning rate's way: a linear warm-up, then half a cosine down to one percent."""

import math

FLOOR = 0.01
"""Share of the learning rate that the last step has."""


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate (Loshchilov and Hutter 2017, without restarts).

    Args:
        step: steps taken so far.
        steps: of the whole training.
        warmup: share of them in which the factor rises.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    share = (step - rising) / max(steps - rising, 1)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def average_decay(steps: int) -> float:
    """Decay of the moving average of weights that looks back over a tenth of the steps."""
    return 1 - 1 / max(0.1 * steps, 1.0)
