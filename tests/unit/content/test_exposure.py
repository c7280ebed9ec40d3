"""The offset of cold items' bias against counting places by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.content.exposure import exposure_offset


def taken(warm: np.ndarray, cold: np.ndarray, places: int) -> float:
    """Share of the first places that cold items take, by sorting everything."""
    order = np.argsort(-np.concatenate([warm, cold], axis=1), axis=1, kind="stable")[:, :places]
    return float((order >= warm.shape[1]).mean())


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_offset_leaves_cold_items_their_share(share: float) -> None:
    rng = np.random.default_rng(0)
    warm, cold = rng.normal(0, 1, (200, 40)), rng.normal(1, 1, (200, 10))
    offset = exposure_offset(warm, cold, share, places=5)
    assert 0.8 * share <= taken(warm, cold + offset, 5) <= share


def test_cold_items_of_low_scores_are_lifted_to_their_share() -> None:
    rng = np.random.default_rng(0)
    warm, cold = rng.normal(0, 1, (200, 40)), rng.normal(-3, 1, (200, 10))
    offset = exposure_offset(warm, cold, 0.1, places=5)
    assert offset > 0
    assert 0.08 <= taken(warm, cold + offset, 5) <= 0.1


def test_share_of_all_places_leaves_scores_as_they_are() -> None:
    assert exposure_offset(np.ones((3, 4)), np.zeros((3, 2)), 1.0, places=2) == 0


def test_no_cold_items_give_no_offset() -> None:
    assert exposure_offset(np.zeros((3, 4)), np.zeros((3, 0)), 0.1) == 0
