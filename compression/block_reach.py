"""How high each block of a table reaches for a user vector, by integers."""

from __future__ import annotations

import torch
from torch import nn

from compression.forms import LARGEST_SAFE

SPREADS = 4.0
"""Standard deviations above the mean that a block's best item is taken to be: 2, 3 and 6 needed more blocks."""
LARGEST_CODE = 127
"""Of a vector's codes, which are stored as unsigned bytes about 128."""
CHUNK = 1_024


class Reaches(nn.Module):
    """An estimate of the best product in each block: ``q . mean + SPREADS * sqrt(sum_d (q . e_d)^2 var_d)``.

    Means and variances have 7 bits and a scale per block: reading them is most of the work, and the estimate is rough.

    Args:
        values: Item vectors float32 ``(I + 1, D)``.
        order: Rows int32 ``(C, S)``; I fills blocks up and counts as nothing.
        basis: Directions ``e_d`` as columns ``(D, D)``.
    """

    means: torch.Tensor
    mean_scale: torch.Tensor
    variances: torch.Tensor
    variance_scale: torch.Tensor
    basis: torch.Tensor

    def __init__(self, values: torch.Tensor, order: torch.Tensor, basis: torch.Tensor) -> None:
        super().__init__()
        means, variances = _moments(values, order, basis)
        for name, table in (("mean", means), ("variance", variances)):
            codes, scale = seven_bits(table)
            self.register_buffer(f"{name}s", codes.T.contiguous())  # (D, C)
            self.register_buffer(f"{name}_scale", scale)  # (C,)
        self.register_buffer("basis", basis)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Reaches float32 ``(B, C)`` of vectors ``(B, D)``."""
        squares = (vectors @ self.basis).square()
        spread = _products(squares, self.variances) * (self.variance_scale * SPREADS**2)
        return _products(vectors, self.means) * self.mean_scale + torch.sqrt(spread.clamp(min=0.0))


def _moments(values: torch.Tensor, order: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means, and variances along the basis, float32 ``(C, D)`` each."""
    means, variances = [], []
    for part in order.split(CHUNK):
        here = (part < len(values) - 1).float()[:, :, None]  # (c, S, 1)
        count = here.sum(1).clamp(min=1.0)
        vectors = values[part.long()]  # (c, S, D)
        mean = (vectors * here).sum(1) / count
        means.append(mean)
        variances.append(((((vectors - mean[:, None]) @ basis) * here).square()).sum(1) / count)
    return torch.cat(means), torch.cat(variances)


def _products(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    small, step = whole_numbers(vectors)
    return integer_products(small, codes) * step


def seven_bits(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 codes ``(N, D)`` of at most ``LARGEST_SAFE``, and the scale of each row ``(N,)``."""
    scale = values.abs().amax(1).clamp(min=1e-30) / LARGEST_SAFE
    return (values / scale[:, None]).round().to(torch.int8), scale


def whole_numbers(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors ``(B, D)`` as whole numbers of at most ``LARGEST_CODE`` and the step of each ``(B, 1)``.

    Each vector has its own step, so that an answer does not depend on who else is in the batch.
    """
    step = (vectors.abs().amax(1, keepdim=True) / LARGEST_CODE).clamp(min=1e-30)
    return torch.round(vectors / step), step


def integer_products(small: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Products float32 ``(..., M, N)`` of whole numbers ``(..., M, D)`` with int8 codes ``(..., D, N)``.

    Exported it is MatMulInteger; in torch floats give the very same numbers, as sums stay below 2^24.
    """
    if not torch.compiler.is_exporting():
        return small @ codes.float()
    counts: torch.Tensor = torch.onnx.ops.symbolic(
        "MatMulInteger",
        ((small + 128).to(torch.uint8), codes, torch.tensor(128, dtype=torch.uint8)),
        dtype=torch.int32,
        shape=(*torch.broadcast_shapes(small.shape[:-2], codes.shape[:-2]), small.shape[-2], codes.shape[-1]),
        version=20,
    )
    return counts.float()
