"""How far probabilities can be trusted: reliability, calibration error, area under the ROC."""

from __future__ import annotations

import numpy as np

_BINS = 15

# Of each bin: its mean probability, the share of true outcomes, and the number of probabilities.
Bins = list[tuple[float, float, int]]


def reliability(chances: np.ndarray, outcomes: np.ndarray) -> Bins:
    """Sorts probabilities into 15 bins of equal width, and compares each with what happened.

    Args:
        chances: float `[N]`, in 0..1.
        outcomes: bool `[N]`.

    Returns:
        The bins that are not empty, in order.

    Example:
        >>> reliability(np.array([0.1, 0.1, 0.9]), np.array([False, True, True]))
        [(0.1, 0.5, 2), (0.9, 1.0, 1)]
    """
    bins = np.minimum((chances * _BINS).astype(int), _BINS - 1)
    parts = [np.flatnonzero(bins == number) for number in np.unique(bins)]
    return [
        (float(chances[part].mean()), float(outcomes[part].mean()), len(part)) for part in parts
    ]


def calibration_error(bins: Bins) -> float:
    """Returns the expected calibration error: the mean distance of probability and share.

    Example:
        >>> round(calibration_error([(0.1, 0.5, 2), (0.9, 1.0, 1)]), 3)
        0.3
    """
    total = sum(count for *_, count in bins)
    return sum(count * abs(chance - share) for chance, share, count in bins) / total


def roc_area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Returns how often a positive value is above a negative one; equal ones count half.

    Example:
        >>> roc_area(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
        0.875
    """
    ordered = np.sort(negative)
    sides = (np.searchsorted(ordered, positive, side) for side in ("left", "right"))
    return float(sum(counts.mean() for counts in sides) / (2 * len(ordered)))
