from __future__ import annotations

import math

import numpy as np
import pytest

from bench.scoring import BadListsError, Question, check_lists, compare, per_user, question
from core.dataset import Dataset
from tests.unit.bench.worlds import two_tastes

FIT = ("train", "valid")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return two_tastes()


@pytest.fixture(scope="module")
def asked(data: Dataset) -> Question:
    return question(data, FIT, FIT, "test", liked_from=4)


def unseen_lists(asked: Question, k: int = 20) -> np.ndarray:
    """The lowest unseen rows of each user."""
    seen = asked.problem.seen[asked.problem.query_users].toarray()
    order = np.argsort(seen, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(seen, order, 1), -1, order)


def test_metrics_equal_those_of_walking_the_lists(data: Dataset, asked: Question) -> None:
    lists, found = unseen_lists(asked), per_user(asked, unseen_lists(asked))["all"]
    later = data.events.of_splits(("test",))
    for place, user in enumerate(asked.problem.query_users):
        truth = set(later.item_rows[later.user_rows == user].tolist())
        top = [item in truth for item in lists[place, :10].tolist()]
        gain = sum(1 / math.log2(n + 2) for n, hit in enumerate(top) if hit)
        ideal = sum(1 / math.log2(n + 2) for n in range(len(truth)))
        assert found["ndcg@10"][place] == pytest.approx(gain / ideal)
        assert found["recall@10"][place] == pytest.approx(sum(top) / len(truth))


def test_cold_users_count_among_all_and_not_among_warm(asked: Question) -> None:
    assert len(asked.groups["all"].places) == len(asked.groups["warm"].places) + 1


def test_liked_counts_only_highly_valued_items(data: Dataset, asked: Question) -> None:
    later = data.events.of_splits(("test",))
    warm = later.user_rows != 0
    assert asked.groups["liked"].truth.sizes.sum() == ((later.raw_values >= 4) & warm).sum()


def test_masked_splits_are_no_answer_even_where_they_were_not_learned_from(data: Dataset) -> None:
    ratio = question(data, ("train",), FIT, "test")
    assert ratio.problem.seen.nnz > len(ratio.problem.user_rows)
    assert ratio.problem.seen.nnz == len(data.events.of_splits(FIT))


def test_a_draw_of_users_asks_only_them_and_keeps_their_truth(data: Dataset, asked: Question) -> None:
    few = question(data, FIT, FIT, "test", most_users=7)
    assert len(few.problem.query_users) == len(few.groups["all"].places) == 7
    assert few.groups["all"].truth.sizes.tolist() == [2] * 7
    assert len(few.problem.user_rows) == len(asked.problem.user_rows)


def test_a_seen_item_in_a_list_is_refused(asked: Question) -> None:
    lists = unseen_lists(asked)
    lists[3, 0] = asked.problem.seen[asked.problem.query_users[3]].indices[0]
    with pytest.raises(BadListsError, match="already seen"):
        check_lists(asked.problem, lists)


def test_a_repeated_item_is_refused(asked: Question) -> None:
    lists = unseen_lists(asked)
    lists[3, 1] = lists[3, 0]
    with pytest.raises(BadListsError, match="repeats"):
        check_lists(asked.problem, lists)


@pytest.mark.parametrize(("shift", "verdict"), [(0.3, "wins"), (-0.3, "loses"), (0.0, "even")])
def test_only_differences_above_two_standard_errors_are_wins(shift: float, verdict: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, 400)
    theirs = np.random.default_rng(1).random(400)
    assert compare(theirs + noise - noise.mean() + shift, theirs)[1] == verdict
