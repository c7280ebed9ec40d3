"""Re-ranking against slow, obvious oracles that look at every list anew."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import RequestError
from core.tensors import MASKED
from serving.rerank import NO_GROUP, RIDGE, ItemTables, Method, Reranker, rerank_places

N_ITEMS, D, R = 40, 6, 12


def tables(seed: int = 0, *, groups: np.ndarray | None = None, limits: tuple[int, ...] = ()) -> ItemTables:
    vectors = np.random.default_rng(seed).standard_normal((N_ITEMS + 1, D))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[-1] = 0
    return ItemTables(
        vectors.astype(np.float16),
        np.zeros(N_ITEMS + 1, np.float32),
        np.full((N_ITEMS + 1, 0), NO_GROUP, np.int32) if groups is None else groups,
        np.array(limits, np.int32),
    )


def reranker(method: Method = "mmr", pool: int = R, of: ItemTables | None = None) -> Reranker:
    return Reranker(method, 0.0, pool, tables() if of is None else of)


def candidates(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(N_ITEMS)[:R] for _ in range(count)])
    return rows, -np.sort(-rng.standard_normal((count, R)).astype(np.float32), axis=1)


def lists(rows: np.ndarray, places: np.ndarray) -> list[list[int]]:
    return [[int(row[at]) for at in best if at >= 0] for row, best in zip(rows, places, strict=True)]


def greedy_oracle(
    rows: np.ndarray, scores: np.ndarray, width: int, diversity: float, method: str, vectors: np.ndarray
) -> list[int]:
    """One user's list; the bonus of a candidate is computed from the whole list that it would make."""
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    unit = vectors.astype(np.float64)
    chosen: list[int] = []

    def log_volume(places: list[int]) -> float:
        kernel = (1 + unit[rows[places]] @ unit[rows[places]].T) / 2
        np.fill_diagonal(kernel, 1 + RIDGE)
        return float(np.linalg.slogdet(kernel)[1]) if places else 0.0

    for _ in range(width):
        best, best_value = -1, -np.inf
        for at in range(len(rows)):
            if at in chosen:
                continue
            if method == "mmr":
                bonus = -max((float(unit[rows[at]] @ unit[rows[other]]) for other in chosen), default=-1.0)
            else:
                bonus = log_volume([*chosen, at]) - log_volume(chosen)
            value = (1 - diversity) * relevance[at] + diversity * bonus
            if value > best_value + 1e-9:
                best, best_value = at, value
        chosen.append(best)
    return [int(rows[at]) for at in chosen]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
@pytest.mark.parametrize("diversity", [0.05, 0.3, 0.7])
def test_lists_equal_the_greedy_oracle(method: Method, diversity: float) -> None:
    rows, scores = candidates(25)
    places = rerank_places(rows, scores, 6, np.full(25, diversity, np.float32), reranker(method))
    wanted = [greedy_oracle(r, s, 6, diversity, method, tables().vectors) for r, s in zip(rows, scores, strict=True)]
    assert lists(rows, places) == wanted


@pytest.mark.parametrize("method", ["none", "mmr", "dpp"])
def test_order_stays_when_diversity_is_zero_and_there_are_no_rules(method: Method) -> None:
    rows, scores = candidates(9)
    places = rerank_places(rows, scores, R, np.zeros(9, np.float32), reranker(method))
    assert (places == np.arange(R)).all()


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_each_user_has_a_diversity_of_its_own(method: Method) -> None:
    rows, scores = candidates(6)
    mixed = np.array([0, 0.2, 0.9, 0, 1, 0.5], np.float32)
    together = rerank_places(rows, scores, 8, mixed, reranker(method))
    for user in range(6):
        one = slice(user, user + 1)
        assert (rerank_places(rows[one], scores[one], 8, mixed[one], reranker(method)) == together[one]).all()
    assert (together[[0, 3]] == np.arange(8)).all()


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_a_longer_list_begins_with_the_shorter_one(method: Method) -> None:
    rows, scores = candidates(5)
    half = np.full(5, 0.5, np.float32)
    long = rerank_places(rows, scores, R, half, reranker(method))
    assert (long[:, :4] == rerank_places(rows, scores, 4, half, reranker(method))).all()
    assert (np.sort(long, axis=1) == np.arange(R)).all()


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_a_twin_of_the_first_item_falls_behind(method: Method) -> None:
    of = tables()
    of.vectors[1] = of.vectors[0]
    of.vectors[2] = -of.vectors[0]
    rows, scores = np.array([[0, 1, 2]]), np.array([[1.0, 0.9, 0.5]], np.float32)
    places = rerank_places(rows, scores, 3, np.full(1, 0.5, np.float32), reranker(method, of=of))
    assert lists(rows, places) == [[0, 2, 1]]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_candidates_behind_the_pool_keep_their_places(method: Method) -> None:
    rows, scores = candidates(4)
    places = rerank_places(rows, scores, R, np.full(4, 0.9, np.float32), reranker(method, pool=5))
    assert (np.sort(places[:, :5], axis=1) == np.arange(5)).all()
    assert (places[:, 5:] == np.arange(5, R)).all()


@pytest.mark.parametrize("method", ["none", "mmr", "dpp"])
def test_places_without_an_item_are_never_chosen(method: Method) -> None:
    rows, scores = candidates(2)
    scores[0, 4:], rows[0, 4:] = MASKED, N_ITEMS
    scores[1], rows[1] = MASKED, N_ITEMS
    places = rerank_places(rows, scores, 6, np.full(2, 0.0 if method == "none" else 0.5, np.float32), reranker(method))
    assert sorted(places[0, :4]) == [0, 1, 2, 3]
    assert (places[0, 4:] == -1).all()
    assert (places[1] == -1).all()


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_equal_scores_and_vectors_keep_their_order(method: Method) -> None:
    of = tables()
    of.vectors[:] = of.vectors[0]
    rows, scores = np.arange(R)[None], np.ones((1, R), np.float32)
    places = rerank_places(rows, scores, R, np.full(1, 0.5, np.float32), reranker(method, of=of))
    assert (places == np.arange(R)).all()


@pytest.mark.filterwarnings("error")
def test_lists_longer_than_the_vectors_are_wide_stay_complete() -> None:
    """Past rank D + 1 only the ridge is left: nothing overflows, nothing repeats."""
    rng = np.random.default_rng(3)
    rows, scores = np.arange(30)[None], -np.sort(-rng.standard_normal((1, 30)).astype(np.float32), axis=1)
    places = rerank_places(rows, scores, 30, np.full(1, 0.5, np.float32), reranker("dpp", pool=30))
    assert sorted(places[0]) == list(range(30))


def test_boost_lifts_an_item_by_a_share_of_the_spread() -> None:
    of = tables()
    of.boosts[7] = 0.55
    rows, scores = np.array([[3, 5, 7]]), np.array([[10.0, 6.0, 0.0]], np.float32)
    places = rerank_places(rows, scores, 3, np.zeros(1, np.float32), reranker("none", of=of))
    assert lists(rows, places) == [[3, 5, 7]]
    of.boosts[7] = 0.65
    places = rerank_places(rows, scores, 3, np.zeros(1, np.float32), reranker("none", of=of))
    assert lists(rows, places) == [[3, 7, 5]]


def test_caps_hold_over_the_whole_list_and_users_do_not_mix() -> None:
    groups = np.full((N_ITEMS + 1, 2), NO_GROUP, np.int32)
    groups[:6, 0] = 0
    groups[4:9, 1] = 1
    of = tables(groups=groups, limits=(2, 1))
    rows = np.array([[0, 1, 2, 3, 4, 9, 10], [4, 5, 8, 9, 0, 1, 10]])
    scores = np.tile(np.arange(7, 0, -1, dtype=np.float32), (2, 1))
    places = rerank_places(rows, scores, 7, np.zeros(2, np.float32), reranker("none", of=of))
    assert lists(rows, places) == [[0, 1, 9, 10], [4, 9, 0, 10]]


def test_caps_and_diversity_work_together() -> None:
    groups = np.full((N_ITEMS + 1, 1), NO_GROUP, np.int32)
    groups[:20, 0] = np.arange(20) % 4
    of = tables(groups=groups, limits=(1, 2, 1, 0))
    rows, scores = candidates(30)
    for method in ("mmr", "dpp"):
        places = rerank_places(rows, scores, R, np.full(30, 0.4, np.float32), reranker(method, of=of))
        for found, ranked in zip(lists(rows, places), rows, strict=True):
            used = [int(groups[row, 0]) for row in found if groups[row, 0] >= 0]
            assert all(used.count(group) <= limit for group, limit in enumerate((1, 2, 1, 0)))
            left = set(ranked.tolist()) - set(found)
            assert all(
                groups[row, 0] >= 0 and used.count(groups[row, 0]) == (1, 2, 1, 0)[groups[row, 0]] for row in left
            )


def test_items_of_full_groups_give_way_to_ones_behind_the_pool() -> None:
    groups = np.full((N_ITEMS + 1, 1), NO_GROUP, np.int32)
    groups[:4, 0] = 0
    rows, scores = np.arange(8)[None], np.arange(8, 0, -1, dtype=np.float32)[None]
    of = tables(groups=groups, limits=(1,))
    places = rerank_places(rows, scores, 4, np.zeros(1, np.float32), reranker("none", pool=4, of=of))
    assert lists(rows, places) == [[0, 4, 5, 6]]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), -float("inf")])
def test_diversity_out_of_range_is_a_request_error(value: float) -> None:
    with pytest.raises(RequestError, match="diversity is out of range") as error:
        reranker().wanted(np.array([0.5, value], np.float32), 2)
    assert error.value.expected == "a number from 0 to 1"


def test_diversity_of_a_release_that_does_not_rerank_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="does not re-rank") as error:
        reranker("none").wanted(np.array([0, 0.3], np.float32), 2)
    assert "rerank.method" in str(error.value.next_step)
    assert not reranker("none").wanted(np.zeros(2, np.float32), 2).any()


def test_the_default_diversity_counts_where_a_request_names_none() -> None:
    assert Reranker("mmr", 0.25, R, tables()).wanted(None, 3).tolist() == [0.25, 0.25, 0.25]
