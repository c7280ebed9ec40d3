from __future__ import annotations

import numpy as np
import pytest

from core.errors import RequestError, ServerError
from core.tensors import MASKED
from serving.respond import Ranked, build_response

IDS = np.array(["a", "b", "c", "d", ""], dtype=object)


def ranked(scores: list[list[float]]) -> Ranked:
    """Rows 0..R-1 with these scores; each is explained by itself, row 0 and nothing."""
    values = np.array(scores, np.float32)
    rows = np.tile(np.arange(values.shape[1]), (len(values), 1))
    reasons = np.stack([rows, np.zeros_like(rows), np.full_like(rows, 4)], axis=2)
    weights = np.broadcast_to(np.array([0.7, 0.3, 0], np.float32), reasons.shape)
    return Ranked(rows, values, reasons, weights)


def test_lists_are_cut_to_k_with_reasons() -> None:
    response = build_response(np.array([2]), ranked([[3, 2, 1]]), IDS)
    assert response.item_ids.tolist() == [["a", "b"]]
    assert response.scores.tolist() == [[3, 2]]
    assert response.reason_ids.tolist() == [[["a", "a", ""], ["b", "a", ""]]]
    assert np.allclose(response.reason_shares, [0.7, 0.3, 0])


def test_users_with_smaller_k_are_padded_to_the_largest() -> None:
    response = build_response(np.array([1, 3]), ranked([[3, 2, 1], [6, 5, 4]]), IDS)
    assert response.item_ids.tolist() == [["a", "", ""], ["a", "b", "c"]]
    assert response.scores.tolist() == [[3, 0, 0], [6, 5, 4]]
    assert response.reason_ids[0, 1:].tolist() == [["", "", ""], ["", "", ""]]
    assert not response.reason_shares[0, 1:].any()


def test_masked_items_never_come_back() -> None:
    response = build_response(np.array([3]), ranked([[3, MASKED, 2 * MASKED]]), IDS)
    assert response.item_ids.tolist() == [["a", "", ""]]
    assert response.scores.tolist() == [[3, 0, 0]]


def test_gaps_close_up_in_order() -> None:
    response = build_response(np.array([2]), ranked([[MASKED, 3, MASKED, 2]]), IDS)
    assert response.item_ids.tolist() == [["b", "d"]]
    assert response.reason_ids[0, 0].tolist() == ["b", "a", ""]


@pytest.mark.parametrize("k", [0, -1, 4])
def test_k_out_of_range_is_a_request_error(k: int) -> None:
    with pytest.raises(RequestError) as error:
        build_response(np.array([1, k]), ranked([[3, 2, 1]] * 2), IDS)
    assert error.value.expected == "a number from 1 to 3"
    assert error.value.found == str(k)


def test_nan_score_is_an_error() -> None:
    with pytest.raises(ServerError, match="not a number"):
        build_response(np.array([1]), ranked([[1, float("nan")]]), IDS)
