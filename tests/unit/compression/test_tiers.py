"""Tables whose rows have as many bits as their items are popular."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.packed import PackedTiers
from compression.tiers import (
    Widths,
    pack_planes,
    popularity_order,
    quantize_tiers,
    tier_sizes,
    unpack_planes,
)

POPULARITY = torch.rand(203, generator=torch.Generator().manual_seed(1)).half()
TABLE = torch.cat([torch.randn(203, 11, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 11)])
ORDER = popularity_order(torch.cat([POPULARITY.float(), torch.tensor([-1e30])]))


@given(st.integers(1, 7), st.integers(1, 20), st.integers(1, 9), st.integers(0, 2**31))
def test_planes_give_back_steps_of_codes(bits: int, rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, columns), generator=generator).to(torch.uint8)
    steps = unpack_planes(pack_planes(codes, bits), rows, columns, bits)
    assert torch.equal(steps, 2 * codes.float() - (2**bits - 1))


def test_popular_rows_err_least_and_padding_is_exactly_zero() -> None:
    error = (quantize_tiers(TABLE, ORDER, (6, 4, 2, 0), 0.0).values() - TABLE).square().sum(1)[ORDER]
    tiers = torch.split(error, list(tier_sizes(len(ORDER))))
    means = [float(tier.mean()) for tier in tiers]
    assert means == sorted(means)
    assert error[-1] == 0  # the padding row is never popular


@pytest.mark.parametrize("widths", [(7, 5, 3, 1), (4, 3, 1, 0), (1, 1, 1, 1)])
def test_stored_tiers_come_back(widths: Widths) -> None:
    part = PackedTiers(quantize_tiers(TABLE, ORDER, widths, 0.5), POPULARITY)
    stored = {name: one.tensor for name, one in part.stored("items").items()}
    again = PackedTiers.read("items", {**stored, "empty_bias": POPULARITY}, part.facts())
    assert torch.equal(again.values(), part.values())
    torch.testing.assert_close(part.table.quantized().values(), part.values(), atol=1e-4, rtol=1e-4)


def test_truncated_planes_are_refused() -> None:
    part = PackedTiers(quantize_tiers(TABLE, ORDER, (4, 3, 2, 1), 0.5), POPULARITY)
    stored = {name: one.tensor for name, one in part.stored("items").items()}
    stored["items.planes"] = stored["items.planes"][:-1]
    with pytest.raises(ValueError, match="bytes"):
        PackedTiers.read("items", {**stored, "empty_bias": POPULARITY}, part.facts())


def test_bytes_are_what_the_widths_say() -> None:
    stored = PackedTiers(quantize_tiers(TABLE, ORDER, (4, 2, 1, 0), 0.5), POPULARITY).stored("items")
    bits = sum(rows * width for rows, width in zip(tier_sizes(len(ORDER)), (4, 2, 1, 0), strict=True))
    assert stored["items.planes"].size_bytes <= bits * 11 / 8 + 7
