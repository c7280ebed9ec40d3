from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from bench.adapters.contract import Problem, read_problem, top_lists, write_problem


def problem(query: list[int] | None = None) -> Problem:
    """User 0 has items 0 and 1, user 1 has item 1, user 2 has nothing; user 1's item 3 is masked as well."""
    users, items = np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32)
    seen = sp.csr_matrix((np.ones(4, bool), ([0, 0, 1, 1], [0, 1, 1, 3])), shape=(3, 4))
    return Problem(3, 4, users, items, np.zeros(3), seen, np.array(query or [0, 1, 2]))


def test_lists_leave_out_masked_items_and_end_with_minus_one() -> None:
    lists = top_lists(problem([0, 1]), lambda users: np.tile([4.0, 3.0, 2.0, 1.0], (len(users), 1)), k=3)
    assert lists.tolist() == [[2, 3, -1], [0, 2, -1]]


def test_ties_go_to_the_lower_row_also_at_the_cut() -> None:
    lists = top_lists(problem([0]), lambda users: np.zeros((len(users), 4)), k=1)
    assert lists.tolist() == [[2]]


def test_users_without_events_get_what_is_popular_whatever_the_peer_says() -> None:
    lists = top_lists(problem([2]), lambda users: np.tile([0.0, 0.0, 0.0, 9.0], (len(users), 1)), k=2)
    assert lists.tolist() == [[1, 0]]


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        top_lists(problem([0]), lambda users: np.full((len(users), 4), np.nan), k=2)


def test_problem_survives_its_file(tmp_path: Path) -> None:
    write_problem(tmp_path / "p.npz", problem())
    back = read_problem(tmp_path / "p.npz")
    assert (back.seen != problem().seen).nnz == 0
    assert back.matrix().toarray().tolist() == problem().matrix().toarray().tolist()
    assert back.query_users.tolist() == [0, 1, 2]
