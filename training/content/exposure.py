"""How often items without events may show: their bias is lowered until they take no more than their share."""

from __future__ import annotations

import numpy as np

PLACES = 10


def exposure_offset(
    warm_scores: np.ndarray, cold_scores: np.ndarray, most_share: float, *, places: int = PLACES
) -> float:
    """What is added to the bias of all cold items, 0 at most.

    A cold item takes a place where its score is above that of the user's last place. The offset leaves as many such
    pairs as ``most_share`` of all places; an item that earns no place gains none.

    Args:
        warm_scores: float ``(N, I)`` of some users, forbidden and cold items at ``MASKED``.
        cold_scores: float ``(N, cold)`` of the same users before the offset.
        most_share: Share of the first ``places`` places, 0 to 1.
    """
    users, cold = cold_scores.shape
    if users == 0 or cold == 0:
        return 0.0
    width = min(places, warm_scores.shape[1])
    last = -np.partition(-warm_scores, width - 1, axis=1)[:, width - 1]
    margins = np.sort((cold_scores - last[:, None]).ravel())[::-1]
    allowed = int(most_share * users * places)
    if allowed >= len(margins):
        return 0.0
    return float(min(0.0, -np.nextafter(margins[allowed], np.inf)))
