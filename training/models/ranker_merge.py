"""Several candidate lists become one, each item once, with every source's standardised score.

Made of compares, products and reductions only: no Unique, NonZero or scatter, which TensorRT lacks or runs slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.tensors import MASKED

SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Merged:
    """The union of N lists: the C = N K places of the first source, then of the second, and so on.

    Attributes:
        rows: int64 ``(B, C)``.
        valid: bool ``(B, C)``; False for masked entries and for copies of an item that an earlier source lists too.
        scores: ``(B, C, N)`` per-user standardised scores by source; a source that lacks the item gives the lowest
            valid score of its list. 0 where not valid or where the source has no list.
        present: ``(B, C, N)`` 1 where the source listed the item, else 0.
        discounts: ``(B, C, N)`` ``1 / log2(rank + 2)`` with rank from 0; 0 where the source lacks the item.
    """

    rows: Tensor
    valid: Tensor
    scores: Tensor
    present: Tensor
    discounts: Tensor


def merge(rows: Sequence[Tensor], scores: Sequence[Tensor]) -> Merged:
    """Merges each user's recall lists.

    Args:
        rows: Per source int64 ``(B, K)``, best first, without repeats among valid entries.
        scores: Per source float32 ``(B, K)``; ``<= MASKED / 2`` marks no candidate.
    """
    count = len(rows)
    valid = [of_source > MASKED / 2 for of_source in scores]
    own = [_own_columns(*pair) for pair in zip(scores, valid, strict=True)]
    links = {
        (a, b): _links(rows[a], rows[b], valid[a], valid[b], scores[a].dtype)
        for a in range(count)
        for b in range(a + 1, count)
    }
    blocks, first = [], []
    for a in range(count):
        columns, repeated = [], torch.zeros_like(valid[a])
        for b in range(count):
            if a == b:
                columns.append(own[a][0])
                continue
            link = links[a, b] if a < b else links[b, a].transpose(1, 2)
            columns.append(_other_columns(link, *own[b], valid[a]))
            if b < a:
                repeated = repeated | (columns[-1][..., 1] > 0.5)
        blocks.append(torch.stack(columns, 2))  # (B, K, N, 3)
        first.append(valid[a] & ~repeated)
    together = torch.cat(blocks, 1)  # (B, C, N, 3)
    return Merged(torch.cat(list(rows), 1), torch.cat(first, 1), together[..., 0], together[..., 1], together[..., 2])


def _links(rows: Tensor, others: Tensor, valid: Tensor, others_valid: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where two lists hold the same item, ``(B, K, K)``; at most one per row and column."""
    same = (rows.unsqueeze(2) == others.unsqueeze(1)) & valid.unsqueeze(2) & others_valid.unsqueeze(1)
    return same.to(dtype)


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
    """Another source's three columns for this source's entries; its floor where it lacks the item."""
    found = link @ own  # (B, K, 3)
    missing = (found[..., 1] < 0.5) & valid
    standard = torch.where(missing, floor.expand_as(found[..., 0]), found[..., 0])
    return torch.cat([standard.unsqueeze(-1), found[..., 1:]], -1)
