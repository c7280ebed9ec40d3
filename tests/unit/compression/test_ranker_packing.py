"""Packed tables: values, zero rows, word flavour, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.ranker.packing import Columns, PackedTable, quantize_columns
from core.errors import CompressionError

ROWS = 20


def noise(width: int, seed: int = 0) -> torch.Tensor:
    table = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(seed))
    table[-1] = 0
    return table


@given(st.lists(st.tuples(st.sampled_from([32, 16, 8, 4]), st.integers(0, 9)), min_size=1, max_size=5))
def test_columns_are_found_at_their_place_within_half_a_step(kinds: list[tuple[int, int]]) -> None:
    parts = [(Columns(f"c{at}", width, bits), noise(width, at)) for at, (bits, width) in enumerate(kinds)]
    if not sum(columns.width for columns, _ in parts):
        return
    table = PackedTable.pack(parts)
    rows = torch.arange(ROWS).view(2, -1)
    found = table(rows).view(ROWS, -1)
    assert found.shape[1] == table.width
    worst = {32: 0.0, 16: 2e-3, 8: 0.05, 4: 1.6}
    for columns, values in parts:
        of_columns = found[:, table.place(columns.name)]
        assert of_columns.shape == values.shape
        np.testing.assert_allclose(of_columns.numpy(), values.numpy(), atol=worst[columns.bits])
        assert not of_columns[-1].any()  # the padding row


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3))
def test_words_hold_the_same_bytes(eights: int, fours: int, halves: int) -> None:
    if not eights + fours + halves:
        return
    widths = ((8, eights), (4, fours), (16, halves))
    table = PackedTable.pack([(Columns(str(bits), width, bits), noise(width, bits)) for bits, width in widths])
    rows = torch.arange(ROWS)
    assert torch.equal(table.in_words()(rows), table(rows))


@given(st.integers(0, 2**31), st.sampled_from([8, 4]), st.floats(1e-6, 1e6))
def test_codes_are_no_worse_than_the_full_range(seed: int, bits: int, size: float) -> None:
    values = size * torch.randn(30, 3, generator=torch.Generator().manual_seed(seed))
    codes, scales = quantize_columns(values, bits)
    largest = {8: 127, 4: 7}[bits]
    assert int(codes.abs().max()) <= largest
    plain = values.abs().amax(0) / largest
    error = ((codes * scales - values) ** 2).sum(0)
    assert (error <= ((torch.round(values / plain) * plain - values) ** 2).sum(0) * (1 + 1e-4)).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_their_row(value: float) -> None:
    table = noise(3)
    table[7, 1] = value
    with pytest.raises(CompressionError, match="not finite") as caught:
        PackedTable.pack([(Columns("keys", 3, 8), table)])
    assert caught.value.where == "keys"
    assert "the first is 7" in str(caught.value)


def test_value_beyond_half_precision_is_refused() -> None:
    with pytest.raises(CompressionError, match="half precision"):
        PackedTable.pack([(Columns("keys", 1, 16), torch.full((3, 1), 1e6))])


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(CompressionError, match="precision"):
        Columns("keys", 3, 5)
