"""Intervals of shares."""

from __future__ import annotations

import math

NORMAL_95 = 1.959964


def wilson(hits: float, count: float, z: float = NORMAL_95) -> tuple[float, float]:
    """Wilson's interval of a share; (0, 1) where there is nothing.

    Args:
        hits: Some of ``count``.
        count: Independent trials; fractions are allowed, such as an effective number.
        z: Normal quantile, 95 % by default.
    """
    if not count:
        return 0.0, 1.0
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
