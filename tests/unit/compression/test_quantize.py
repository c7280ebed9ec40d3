"""Codes against torch's own quantizer, and what must stay exact."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.quantize import Axis, greedy_ranges, pack_nibbles, quantize, random_rotation, unpack_nibbles
from core.errors import CompressionError

TABLE = torch.randn(300, 24, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.1, 24)


def rmse(values: torch.Tensor) -> float:
    return float((values - TABLE).square().mean().sqrt())


def test_int4_rows_are_as_good_as_torchs_greedy_search() -> None:
    packed = torch.ops.quantized.embedding_bag_4bit_prepack(TABLE, optimized_qparams=True)
    theirs = torch.ops.quantized.embedding_bag_4bit_unpack(packed)
    assert rmse(quantize(TABLE, 4, "rows").values()) <= 1.001 * rmse(theirs)


def test_int8_rows_are_as_good_as_torchs() -> None:
    theirs = torch.ops.quantized.embedding_bag_byte_unpack(torch.ops.quantized.embedding_bag_byte_prepack(TABLE))
    assert rmse(quantize(TABLE, 8, "rows").values()) <= 1.05 * rmse(theirs)


def test_scales_per_column_suit_columns_of_unlike_spread() -> None:
    narrow = slice(18, 24)
    by_columns, by_rows = quantize(TABLE, 4, "columns").values(), quantize(TABLE, 4, "rows").values()
    errors = [(values - TABLE)[:, narrow].square().mean() for values in (by_columns, by_rows)]
    assert errors[0] < errors[1] / 2


def test_greedy_range_errs_less_than_the_whole_range() -> None:
    low, high = greedy_ranges(TABLE, 4)
    assert (low >= TABLE.amin(1)).all()
    assert (high <= TABLE.amax(1)).all()
    whole = (TABLE.amax(1) - TABLE.amin(1)) / 15
    plain = ((TABLE - TABLE.amin(1)[:, None]) / whole[:, None]).round() * whole[:, None] + TABLE.amin(1)[:, None]
    assert rmse(quantize(TABLE, 4, "rows").values()) < rmse(plain)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_rows_of_zeros_stay_exactly_zero(bits: int, axis: Axis) -> None:
    table = torch.cat([TABLE, torch.zeros(1, 24)])
    assert torch.equal(quantize(table, bits, axis).values()[-1], torch.zeros(24))


def test_not_finite_values_are_refused() -> None:
    with pytest.raises(CompressionError, match="not finite"):
        quantize(torch.tensor([[1.0, float("nan")]]), 8, "rows")


@given(st.integers(1, 9), st.integers(1, 13), st.integers(0, 2**31))
def test_nibbles_come_back(rows: int, columns: int, seed: int) -> None:
    codes = torch.randint(0, 16, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    assert torch.equal(unpack_nibbles(pack_nibbles(codes), columns), codes)


def test_random_rotation_is_orthonormal_and_repeats_with_its_seed() -> None:
    turn = random_rotation(16, 3)
    torch.testing.assert_close(turn @ turn.T, torch.eye(16), atol=1e-5, rtol=0)
    assert torch.equal(turn, random_rotation(16, 3))
    assert not torch.equal(turn, random_rotation(16, 4))
