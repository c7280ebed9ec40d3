"""Two candidate lists become one: checked against a slow oracle."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.tensors import MASKED
from training.models.ranker_merge import merge

WIDTH = 6


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


def oracle(mf: tuple[list[int], list[float]], gat: tuple[list[int], list[float]]) -> dict[int, tuple[float, ...]]:
    """Row to (mf score, gat score, in mf, in gat, mf discount, gat discount), the obvious way."""
    sources = []
    for rows, scores in (mf, gat):
        standard = standardise(scores)
        sources.append({row: (score, place) for place, (row, score) in enumerate(zip(rows, standard, strict=False))})
    merged = {}
    for row in list(sources[0]) + [row for row in sources[1] if row not in sources[0]]:
        score, inside, discount = [], [], []
        for source in sources:
            floor = min((value for value, _ in source.values()), default=0.0)
            found = source.get(row)
            score.append(found[0] if found else floor)
            inside.append(float(found is not None))
            discount.append(1 / np.log2(found[1] + 2) if found else 0.0)
        merged[row] = (*score, *inside, *discount)
    return merged


def merged_of(mf: tuple[list[int], list[float]], gat: tuple[list[int], list[float]]) -> dict[int, tuple[float, ...]]:
    tensors = [torch.tensor([part]) for source in (mf, gat) for part in source]
    result = merge(*tensors)
    places = torch.nonzero(result.valid[0]).squeeze(1).tolist()
    rows = result.rows[0, places].tolist()
    assert len(rows) == len(set(rows))
    columns = torch.cat([result.scores, result.present, result.discounts], -1)[0]
    return {row: tuple(columns[place].tolist()) for row, place in zip(rows, places, strict=True)}


@settings(max_examples=150, deadline=None)
@given(candidate_list(), candidate_list())
def test_merge_equals_the_oracle(mf: tuple[list[int], list[float]], gat: tuple[list[int], list[float]]) -> None:
    wanted, found = oracle(mf, gat), merged_of(mf, gat)
    assert list(found) == list(wanted)  # mf's order, then what only gat lists
    for row, values in wanted.items():
        np.testing.assert_allclose(found[row], values, rtol=1e-4, atol=1e-4)


def test_merge_is_finite_when_all_scores_are_equal() -> None:
    found = merged_of(([0, 1, 2, 3, 4, 5], [1.0] * 6), ([0, 1, 2, 3, 4, 5], [MASKED] * 6))
    assert [values[:2] for values in found.values()] == [(0.0, 0.0)] * 6


def test_merge_treats_users_apart() -> None:
    one = (torch.tensor([[0, 1]]), torch.tensor([[2.0, 1.0]]), torch.tensor([[1, 2]]), torch.tensor([[4.0, 3.0]]))
    two = (torch.tensor([[5, 6]]), torch.tensor([[9.0, MASKED]]), torch.tensor([[5, 7]]), torch.tensor([[1.0, 0.5]]))
    together = merge(*(torch.cat(pair) for pair in zip(one, two, strict=True)))
    for place, alone in enumerate((merge(*one), merge(*two))):
        assert torch.equal(together.rows[place], alone.rows[0])
        assert torch.equal(together.valid[place], alone.valid[0])
        torch.testing.assert_close(together.scores[place], alone.scores[0])
