"""Two candidate lists become one, each item once, with both sources' standardised scores.

Made of compares, products and reductions only: no Unique, NonZero or scatter, which TensorRT lacks or runs slowly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.tensors import MASKED

SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Merged:
    """The union of two lists: first the C = 2K places of mf, then gat.

    Attributes:
        rows: int64 ``(B, C)``.
        valid: bool ``(B, C)``; False for masked entries and for gat's copy of an item that mf lists too.
        scores: ``(B, C, 2)`` per-user standardised scores by mf and gat; a source that lacks the item gives the
            lowest valid score of its list. 0 where not valid or where the source has no list.
        present: ``(B, C, 2)`` 1 where the source listed the item, else 0.
        discounts: ``(B, C, 2)`` ``1 / log2(rank + 2)`` with rank from 0; 0 where the source lacks the item.
    """

    rows: Tensor
    valid: Tensor
    scores: Tensor
    present: Tensor
    discounts: Tensor


def merge(mf_rows: Tensor, mf_scores: Tensor, gat_rows: Tensor, gat_scores: Tensor) -> Merged:
    """Merges the two recall lists of each user.

    Args:
        mf_rows: int64 ``(B, K)``, best first, without repeats among valid entries.
        mf_scores: float32 ``(B, K)``; ``<= MASKED / 2`` marks no candidate.
        gat_rows: int64 ``(B, K)``.
        gat_scores: float32 ``(B, K)``.
    """
    mf_valid, gat_valid = mf_scores > MASKED / 2, gat_scores > MASKED / 2
    same = (mf_rows.unsqueeze(2) == gat_rows.unsqueeze(1)) & mf_valid.unsqueeze(2) & gat_valid.unsqueeze(1)
    mf_to_gat = same.to(mf_scores.dtype)  # (B, K, K)
    gat_to_mf = mf_to_gat.transpose(1, 2)

    mf_own, mf_floor = _own_columns(mf_scores, mf_valid)
    gat_own, gat_floor = _own_columns(gat_scores, gat_valid)
    mf_other = _other_columns(mf_to_gat, gat_own, gat_floor, mf_valid)
    gat_other = _other_columns(gat_to_mf, mf_own, mf_floor, gat_valid)

    pair = lambda column: torch.cat(  # noqa: E731
        [
            torch.stack([mf_own[..., column], mf_other[..., column]], -1),
            torch.stack([gat_other[..., column], gat_own[..., column]], -1),
        ],
        1,
    )
    repeated = gat_other[..., 1] > 0.5
    return Merged(
        rows=torch.cat([mf_rows, gat_rows], 1),
        valid=torch.cat([mf_valid, gat_valid & ~repeated], 1),
        scores=pair(0),
        present=pair(1),
        discounts=pair(2),
    )


def _own_columns(scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised score, presence and rank discount ``(B, K, 3)``, and the lowest standardised score ``(B, 1)``."""
    present = valid.to(scores.dtype)
    count = present.sum(1, keepdim=True).clamp(min=1)
    known = torch.where(valid, scores, torch.zeros_like(scores))
    mean = known.sum(1, keepdim=True) / count
    centred = torch.where(valid, scores - mean, torch.zeros_like(scores))
    deviation = ((centred * centred).sum(1, keepdim=True) / count).sqrt()
    standard = centred / deviation.clamp(min=SMALLEST_DEVIATION)
    discounts = 1 / torch.log2(torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype) + 2)
    floor = standard.amin(1, keepdim=True)  # invalid entries are 0, never below the lowest of a centred list
    return torch.stack([standard, present, present * discounts], -1), floor


def _other_columns(link: Tensor, own: Tensor, floor: Tensor, valid: Tensor) -> Tensor:
    """The other source's three columns for this source's entries; its floor where it lacks the item."""
    found = link @ own  # (B, K, 3); at most one link per row
    missing = (found[..., 1] < 0.5) & valid
    standard = torch.where(missing, floor.expand_as(found[..., 0]), found[..., 0])
    return torch.cat([standard.unsqueeze(-1), found[..., 1:]], -1)
