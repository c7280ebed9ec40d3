from __future__ import annotations

import numpy as np
import pytest

from core.errors import RequestError, ServerError
from core.tensors import MASKED
from serving.rerank import ItemTables, Reranker
from serving.respond import Order, Ranked, build_response

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


def reranker(**tables: np.ndarray) -> Reranker:
    """MMR over four items: a and b are twins, c and d stand apart."""
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float16)
    empty = ItemTables.empty(4)
    boosts = tables.get("boosts", empty.boosts)
    groups, limits = tables.get("groups", empty.groups), tables.get("limits", empty.limits)
    return Reranker("mmr", 0.0, 4, ItemTables(vectors, boosts, groups, limits))


def test_scores_and_reasons_stay_with_their_items_when_the_order_changes() -> None:
    order = Order(reranker(), np.array([0.5], np.float32))
    response = build_response(np.array([3]), ranked([[4, 3.9, 3, 2.5]]), IDS, order)
    assert response.item_ids.tolist() == [["a", "c", "d"]]
    assert response.scores.tolist() == [[4, 3, 2.5]]
    assert response.reason_ids.tolist() == [[["a", "a", ""], ["c", "a", ""], ["d", "a", ""]]]


@pytest.mark.parametrize("diversity", [None, np.zeros(2, np.float32)])
def test_no_diversity_and_no_rules_answer_as_without_reranking(diversity: np.ndarray | None) -> None:
    lists = ranked([[4, 3.9, MASKED, 2.5], [MASKED] * 4])
    plain = build_response(np.array([4, 2]), lists, IDS).tensors()
    for name, array in build_response(np.array([4, 2]), lists, IDS, Order(reranker(), diversity)).tensors().items():
        assert array.tobytes() == plain[name].tobytes()


def test_a_final_order_stands_beside_one_that_changes() -> None:
    groups = np.array([[0], [0], [-1], [-1], [-1]], np.int32)
    rules = reranker(groups=groups, limits=np.array([1], np.int32))
    order = Order(rules, np.array([0.5, 0.5], np.float32), np.array([True, False]))
    response = build_response(np.array([3, 3]), ranked([[4, 3.9, 3, 2.5]] * 2), IDS, order)
    assert response.item_ids.tolist() == [["a", "b", "c"], ["a", "c", "d"]]


def test_a_cap_that_nothing_satisfies_leaves_a_short_list() -> None:
    groups = np.array([[0], [0], [0], [-1], [-1]], np.int32)
    order = Order(reranker(groups=groups, limits=np.array([1], np.int32)))
    response = build_response(np.array([4]), ranked([[4, 3, 2, 1]]), IDS, order)
    assert response.item_ids.tolist() == [["a", "d", "", ""]]
    assert response.scores.tolist() == [[4, 1, 0, 0]]
    assert response.reason_ids[0, 2:].tolist() == [["", "", ""]] * 2
    assert not response.reason_shares[0, 2:].any()


def test_a_boost_counts_without_diversity() -> None:
    boosts = np.array([0, 0, 0, 2, 0], np.float32)
    response = build_response(np.array([2]), ranked([[4, 3, 2, 1]]), IDS, Order(reranker(boosts=boosts)))
    assert response.item_ids.tolist() == [["d", "a"]]


def test_diversity_out_of_range_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="diversity is out of range"):
        build_response(np.array([2]), ranked([[4, 3]]), IDS, Order(reranker(), np.array([np.nan], np.float32)))
