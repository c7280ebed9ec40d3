"""Which items lie beside each other in large catalogues, so that a request has to read only a few blocks of them.

Every block holds ``ROWS`` items. A block's *reach* for a user vector ``q`` estimates its best score from a few numbers:
the mean of its vectors, their variance along the directions of users' vectors, and its largest bias (``block_reach``).
The blocks with the largest reach are scanned.

Blocks are cut for inner products with the users that there are: items are compared in the metric of the users' second
moments, in which a distance is a difference of scores, and those that reach high are kept from those that never do
(bands by bias and length), as in Norm-Ranging LSH (Yan et al. 2018, arXiv 1809.08782). Within a band, halving along the
direction of largest variance gives blocks of equal size.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from compression.block_reach import Reaches

ROWS = 64
"""Items of a block. 128 read a quarter to a third more items for the same recall."""
HEAD = 512
"""Most popular items that stand in order in blocks of their own: an empty history asks for popularity alone."""
BANDS = (0.03, 0.1, 0.3)
"""Where the other items, those that reach highest first, are cut into bands. More bands gained nothing."""
HEIGHTS = 3.0
"""Standard deviations of scores that decide over an item's band."""
COVERED = 0.999
"""Share of the sampled users' best items that lies in the blocks scanned."""
SAMPLED_USERS = 256
SAMPLED_ITEMS = 2_000
"""Items whose variance decides the direction of a cut."""
POWER_STEPS = 8
LEAST_EIGENVALUE = 1e-6
"""Of users' second moments, as a share of the largest."""
CHUNK = 32
"""Users scored at once."""
SCANNED_AT_MOST = 1 / 3
"""Where more of the catalogue would be read, blocks gain nothing."""


@dataclass(frozen=True)
class Blocks:
    """An arrangement of I items in C blocks.

    Attributes:
        order: Item rows int32 ``(C, ROWS)``; I fills the last block up.
        basis: Directions of users' vectors as columns, float32 ``(D, D)``.
        probes: P, blocks that a request scans; at least K, so that blocks with a single item left fill a list.
        covered: Share of the sampled users' best items that P blocks hold.
    """

    order: torch.Tensor
    basis: torch.Tensor
    probes: int
    covered: float


def make_blocks(
    values: torch.Tensor, bias: torch.Tensor, popularity: torch.Tensor, users: torch.Tensor, candidates: int, seed: int
) -> Blocks | None:
    """Cuts a table into blocks and finds out how many of them have to be scanned.

    Args:
        values: Item vectors ``(I + 1, D)`` as they are scored, last row zero.
        bias: Item bias ``(I + 1,)``.
        popularity: What orders items for an empty history ``(I + 1,)``.
        users: Vectors of users ``(U, D)``; zero ones are left out.
        candidates: K.
        seed: Of samples.

    Returns:
        None where too many blocks would have to be scanned, or no user has a vector.
    """
    known = users[users.abs().sum(1) > 0]
    if not len(known):
        return None
    rng = torch.Generator().manual_seed(seed)
    sizes, basis = _moments(known)
    n_items = len(values) - 1
    points = torch.cat([values[:-1] @ (basis * sizes), (bias[:-1] + values[:-1] @ known.mean(0))[:, None]], 1)
    order = torch.full((-(-n_items // ROWS) * ROWS,), n_items)
    order[:n_items] = _arrange(points, popularity[:-1], rng)
    blocks = order.view(-1, ROWS).sort(1).values.int()  # within a block by row, as ties are
    chosen = known[torch.randperm(len(known), generator=rng)[:SAMPLED_USERS]]
    ranks = _ranks_of_best(values, bias, blocks, Reaches(values, blocks, basis), chosen, candidates)
    probes = max(candidates, int(torch.quantile(ranks.float(), COVERED, interpolation="higher")) + 1)
    if probes > len(blocks) * SCANNED_AT_MOST:
        return None
    return Blocks(blocks, basis, probes, float((ranks < probes).float().mean()))


def _moments(users: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard deviations ``(D,)`` of users' vectors along directions ``(D, D)``, which are columns."""
    away = users - users.mean(0)
    variances, basis = torch.linalg.eigh((away.T @ away / len(users)).double())
    variances = variances.clamp(min=float(variances.max()) * LEAST_EIGENVALUE)
    return variances.sqrt().float(), basis.float()


def _arrange(points: torch.Tensor, popularity: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Item rows ``(I,)`` block by block: the head, then band by band."""
    n_items = len(points)
    popular = popularity.argsort(dim=0, descending=True, stable=True)
    head = min(HEAD, n_items // ROWS * ROWS)
    rest = popular[head:].sort().values
    heights = points[rest, -1] + HEIGHTS * points[rest, :-1].norm(dim=1)
    rest = rest[heights.argsort(dim=0, descending=True, stable=True)]
    cuts = [0, *(round(share * len(rest) / ROWS) * ROWS for share in BANDS), len(rest)]
    bands = [_halved(points, rest[start:end], rng) for start, end in itertools.pairwise(cuts)]
    return torch.cat([popular[:head], *bands])


def _halved(points: torch.Tensor, rows: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Rows ``(N,)`` ordered so that every ``ROWS`` of them lie close: halved along the longest direction, again and
    again, at multiples of ``ROWS``."""
    rows = rows.clone()
    open_parts = [(0, len(rows))]
    while open_parts:
        start, end = open_parts.pop()
        if end - start <= ROWS:
            continue
        here = rows[start:end]
        inside = points[here]
        drawn = torch.randint(0, len(inside), (SAMPLED_ITEMS,), generator=rng)
        sample = inside[drawn] if len(inside) > SAMPLED_ITEMS else inside
        rows[start:end] = here[(inside @ _longest(sample)).argsort(dim=0, stable=True)]
        half = start + -(-(end - start) // ROWS) // 2 * ROWS
        open_parts += [(start, half), (half, end)]
    return rows


def _longest(sample: torch.Tensor) -> torch.Tensor:
    """The direction ``(D,)`` of largest variance, by the power method."""
    away = sample - sample.mean(0)
    moments = away.T @ away
    direction = moments[int(moments.diagonal().argmax())]
    for _ in range(POWER_STEPS):
        direction = moments @ direction
        direction = direction / direction.norm().clamp(min=1e-30)
    return direction


def _ranks_of_best(
    values: torch.Tensor,
    bias: torch.Tensor,
    order: torch.Tensor,
    reaches: Reaches,
    users: torch.Tensor,
    candidates: int,
) -> torch.Tensor:
    """At which place, by reach, the blocks of each user's best items come ``(U, K)``, the first being 0."""
    n_items = len(values) - 1
    block_of = torch.empty(n_items + 1, dtype=torch.long)
    block_of[order.flatten().long()] = torch.arange(len(order)).repeat_interleave(ROWS)
    tops = bias[order.long()].amax(1)  # padding has MASKED
    found = []
    for part in users.split(CHUNK):
        best = (part @ values.T + bias)[:, :n_items].topk(min(candidates, n_items), dim=1).indices
        places = (reaches(part) + tops).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        found.append(places.gather(1, block_of[best]))
    return torch.cat(found)
