"""Several candidate lists become one: checked against a slow oracle."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.tensors import MASKED
from training.models.ranker_merge import Merged, merge

WIDTH = 6
Lists = list[tuple[list[int], list[float]]]
"""Rows and scores by source."""


@st.composite
def candidate_list(draw: st.DrawFn) -> tuple[list[int], list[float]]:
    """One source's list: distinct rows, descending scores, a masked tail that may repeat valid rows."""
    rows = draw(st.lists(st.integers(0, 9), min_size=WIDTH, max_size=WIDTH, unique=True))
    scores = sorted(draw(st.lists(st.integers(-20, 20), min_size=WIDTH, max_size=WIDTH)), reverse=True)
    known = draw(st.integers(0, WIDTH))
    return rows, [float(score) / 4 for score in scores[:known]] + [MASKED] * (WIDTH - known)


def standardise(scores: list[float]) -> list[float]:
    known = np.array([score for score in scores if score > MASKED / 2])
    deviation = max(known.std(), 1e-6) if len(known) else 1.0
    return [float((score - known.mean()) / deviation) for score in known]


def oracle(lists: Lists) -> dict[int, tuple[float, ...]]:
    """Row to (score by source, presence by source, discount by source), the obvious way."""
    sources = []
    for rows, scores in lists:
        standard = standardise(scores)
        sources.append({row: (score, place) for place, (row, score) in enumerate(zip(rows, standard, strict=False))})
    merged = {}
    for row in dict.fromkeys(row for source in sources for row in source):
        score, inside, discount = [], [], []
        for source in sources:
            floor = min((value for value, _ in source.values()), default=0.0)
            found = source.get(row)
            score.append(found[0] if found else floor)
            inside.append(float(found is not None))
            discount.append(1 / np.log2(found[1] + 2) if found else 0.0)
        merged[row] = (*score, *inside, *discount)
    return merged


def merge_of(lists: Lists) -> Merged:
    return merge([torch.tensor([rows]) for rows, _ in lists], [torch.tensor([scores]) for _, scores in lists])


def merged_of(lists: Lists) -> dict[int, tuple[float, ...]]:
    result = merge_of(lists)
    places = torch.nonzero(result.valid[0]).squeeze(1).tolist()
    rows = result.rows[0, places].tolist()
    assert len(rows) == len(set(rows))
    columns = torch.cat([result.scores, result.present, result.discounts], -1)[0]
    return {row: tuple(columns[place].tolist()) for row, place in zip(rows, places, strict=True)}


@settings(max_examples=150, deadline=None)
@given(st.lists(candidate_list(), min_size=1, max_size=4))
def test_merge_equals_the_oracle(lists: Lists) -> None:
    wanted, found = oracle(lists), merged_of(lists)
    assert list(found) == list(wanted)  # the first source's order, then what only the second lists, and so on
    for row, values in wanted.items():
        np.testing.assert_allclose(found[row], values, rtol=1e-4, atol=1e-4)


def test_merge_is_finite_when_all_scores_are_equal() -> None:
    found = merged_of([([0, 1, 2, 3, 4, 5], [1.0] * 6), ([0, 1, 2, 3, 4, 5], [MASKED] * 6)])
    assert [values[:2] for values in found.values()] == [(0.0, 0.0)] * 6


def test_merge_treats_users_apart() -> None:
    one: Lists = [([0, 1], [2.0, 1.0]), ([1, 2], [4.0, 3.0])]
    two: Lists = [([5, 6], [9.0, MASKED]), ([5, 7], [1.0, 0.5])]
    rows = [torch.tensor([a[0], b[0]]) for a, b in zip(one, two, strict=True)]
    scores = [torch.tensor([a[1], b[1]]) for a, b in zip(one, two, strict=True)]
    together = merge(rows, scores)
    for place, alone in enumerate((merge_of(one), merge_of(two))):
        assert torch.equal(together.rows[place], alone.rows[0])
        assert torch.equal(together.valid[place], alone.valid[0])
        torch.testing.assert_close(together.scores[place], alone.scores[0])
