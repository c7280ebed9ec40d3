"""Size accounts, and passes that do nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from compression.candidate import Candidate, Pass, Sizes, Stored, Unchanged, check_changed, served_form
from core.errors import CompressionError

ORIGINAL = Candidate(
    "recall_mf",
    "fp32",
    "recall",
    nn.Identity(),
    {
        "codes": Stored(torch.ones(10, 4), "tables"),
        "scale": Stored(torch.ones(10, dtype=torch.float16), "scales"),
        "bias": Stored(torch.ones(10), "columns"),
    },
    {},
)


def test_sizes_add_up_by_class() -> None:
    sizes = ORIGINAL.sizes
    assert sizes == Sizes(tables=160, scales=20, columns=40)
    assert (sizes.total, sizes.vectors, (sizes + sizes).total) == (220, 180, 440)


def test_a_pass_that_changed_nothing_is_an_error() -> None:
    after = replace(
        ORIGINAL, name="int8", passes=(Pass("int8", {}, 0.1),), unchanged=(Unchanged("codes", "too few rows"),)
    )
    with pytest.raises(CompressionError, match=r"int8 changed nothing[\s\S]*too few rows"):
        check_changed(ORIGINAL, after)


@pytest.mark.parametrize("codes", [torch.ones(10, 4, dtype=torch.int8), torch.ones(10, 3), torch.zeros(10, 4)])
def test_a_pass_that_changed_dtype_shape_or_value_passes(codes: torch.Tensor) -> None:
    after = replace(ORIGINAL, stored={**ORIGINAL.stored, "codes": Stored(codes, "tables")})
    assert check_changed(ORIGINAL, after) is after


def test_served_form_is_the_module_itself_without_one() -> None:
    assert served_form(ORIGINAL.module, "onnxruntime") is ORIGINAL.module
