"""How often items without events show: their bias is moved until they take the share that they are given."""

from __future__ import annotations

import numpy as np

PLACES = 10


def exposure_offset(warm_scores: np.ndarray, cold_scores: np.ndarray, share: float, *, places: int = PLACES) -> float:
    """What is added to the bias of all cold items.

    An item that nobody met has few first places by its score alone, since uncertain vectors are short. The offset gives
    cold items ``share`` of all first places, to the users who fit them best.

    Args:
        warm_scores: float ``(N, I)`` of some users, forbidden and cold items at ``MASKED``.
        cold_scores: float ``(N, cold)`` of the same users before the offset.
        share: Share of the first ``places`` places; 1 leaves scores as they are.
    """
    users, cold = cold_scores.shape
    places = min(places, warm_scores.shape[1])
    if users == 0 or cold == 0:
        return 0.0
    # A user's j-th best cold item is among the places when fewer than places - j warm items are above it.
    width = min(places, cold)
    best_cold = -np.sort(-cold_scores, axis=1)[:, :width]
    best_warm = -np.partition(-warm_scores, range(places), axis=1)
    margins = np.sort((best_cold - best_warm[:, [places - 1 - place for place in range(width)]]).ravel())[::-1]
    allowed = int(share * users * places)
    if allowed >= len(margins):
        return 0.0
    # a little above the first pair that has no place
    return float(-np.nextafter(margins[allowed], np.inf))
