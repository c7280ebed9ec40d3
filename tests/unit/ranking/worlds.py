"""Small worlds with known answers, for tests of the ranker."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.dataset import Dataset, Events
from core.features import FeatureColumn, FeatureTable
from core.settings import Settings, load_settings
from core.tensors import MASKED
from core.vocabulary import Vocabulary
from training.models.ranker import ItemTables, Ranker, RankerShape
from training.models.ranker_members import LinearMember, NetworkMember, TreesMember
from training.models.ranker_shape import STATISTICS

DAY = 86_400.0
SOURCES = ("mf", "gat")
ITEM_COLUMNS = (FeatureColumn("tags", "tags", 5, 2), FeatureColumn("year", "number", 4, 1))
USER_COLUMNS = (FeatureColumn("group", "category", 4, 1),)


def block_dataset(
    *,
    n_users: int = 240,
    n_items: int = 60,
    n_blocks: int = 3,
    per_user: int = 16,
    with_times: bool = True,
    with_values: bool = True,
    with_attributes: bool = True,
    seed: int = 0,
) -> Dataset:
    """Each user belongs to one block and takes nine in ten events from its items; early items of a block lead."""
    rng = np.random.default_rng(seed)
    item_block = np.arange(n_items) % n_blocks
    appeal = 1 / (1 + np.arange(n_items) // n_blocks)
    rows_of_user = []
    for user in range(n_users):
        weights = appeal * np.where(item_block == user % n_blocks, 0.9, 0.1 / (n_blocks - 1))
        rows_of_user.append(rng.choice(n_items, per_user, replace=False, p=weights / weights.sum()))
    users, items = np.repeat(np.arange(n_users), per_user), np.concatenate(rows_of_user)
    times = rng.random(len(users)) * 100 * DAY
    order = np.argsort(times)
    users, items, times = users[order], items[order], times[order]
    liked = np.where(item_block[items] == users % n_blocks, 5.0, 2.0).astype(np.float32)
    unknown = np.full(len(users), np.nan, np.float32)
    splits = np.searchsorted(np.quantile(times, [0.8, 0.9]), times).astype(np.uint8)
    events = Events(
        users.astype(np.int32),
        items.astype(np.int32),
        times if with_times else np.zeros(len(users)),
        ((liked - liked.mean()) / liked.std()).astype(np.float32) if with_values else np.zeros(len(users), np.float32),
        liked if with_values else unknown,
        splits,
        np.zeros(len(users), np.uint8),
    )
    codes = np.stack([1 + item_block, np.zeros(n_items), 1 + np.arange(n_items) % 3], 1).astype(np.int32)
    groups = (1 + np.arange(n_users) % n_blocks).astype(np.int32)[:, None]
    return Dataset(
        events,
        Vocabulary([f"u{row}" for row in range(n_users)]),
        Vocabulary([f"i{row}" for row in range(n_items)]),
        np.array([f"Item {row}" for row in range(n_items)], dtype=object),
        FeatureTable(USER_COLUMNS, groups) if with_attributes else FeatureTable((), np.zeros((n_users, 0), np.int32)),
        FeatureTable(ITEM_COLUMNS, codes) if with_attributes else FeatureTable((), np.zeros((n_items, 0), np.int32)),
        has_times=with_times,
        has_values=with_values,
    )


def quick_settings(*more: str) -> Settings:
    """Small models, few passes."""
    return load_settings(
        (),
        ("mf.dimension=8", "mf.epochs=3", "gat.dimension=8", "gat.epochs=2", "recall.candidates=20",
         "ranker.epochs=3", "serving.max_k=10", *more),
    )  # fmt: skip


def random_tables(n_items: int, dimension: int, content: int, generator: torch.Generator) -> ItemTables:
    """Item tables of noise with attributes as in ``ITEM_COLUMNS``; the padding row is zero."""
    normal = lambda width: _padded(torch.randn(n_items, width, generator=generator))  # noqa: E731
    codes = torch.stack([torch.randint(0, 4, (n_items,), generator=generator) for _ in range(3)], 1)
    return ItemTables(
        normal(dimension),
        torch.nn.functional.normalize(normal(content), dim=1),
        normal(len(STATISTICS)),
        _padded(codes),
    )


def random_ranker(
    *,
    n_items: int = 50,
    candidates: int = 12,
    returned: int = 10,
    trained: bool = True,
    members: tuple[str, ...] = ("network",),
    seed: int = 0,
) -> Ranker:
    """A ranker over noise; ``trained`` gives its members weights, which are zero otherwise."""
    generator = torch.Generator().manual_seed(seed)
    shape = RankerShape(
        n_items, SOURCES, candidates, returned, 8, 4, ITEM_COLUMNS, USER_COLUMNS, 4, 2, (16, 8), 0.1,
        members, trees=6, tree_depth=3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = Ranker(shape, random_tables(n_items, 8, 4, generator)).eval()
    if trained:
        with torch.no_grad():
            for member in ranker.correction.members:
                if isinstance(member, NetworkMember):
                    member.network.output.weight.normal_(std=0.3, generator=generator)
                elif isinstance(member, LinearMember):
                    member.weight.normal_(std=0.3, generator=generator)
                elif isinstance(member, TreesMember):
                    member.sum.features.random_(0, 20, generator=generator)
                    member.sum.thresholds.normal_(generator=generator)
                    member.sum.leaves.normal_(std=0.3, generator=generator)
            ranker.correction.gate.normal_(std=0.2 * (len(members) > 1), generator=generator)
    return ranker


def random_inputs(
    batch: int, length: int, *, n_items: int = 50, candidates: int = 12, masked: int = 3, seed: int = 0
) -> tuple[Tensor, ...]:
    """Inputs of the rank step; the first user's history is empty, the last ``masked`` candidates are none."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    lengths[0] = 0
    mask = torch.arange(length) < lengths[:, None]
    rows = torch.where(mask, torch.randint(0, n_items, (batch, length), generator=generator), n_items)
    ages = torch.where(mask, torch.rand(batch, length, generator=generator).cumsum(1), 0.0)
    values = torch.where(mask, torch.randn(batch, length, generator=generator), 0.0)
    groups = torch.randint(0, 4, (batch, 1), generator=generator)
    lists: list[Tensor] = []
    for _ in SOURCES:
        picked = torch.stack([torch.randperm(n_items, generator=generator)[:candidates] for _ in range(batch)])
        scores = torch.randn(batch, candidates, generator=generator).sort(1, descending=True).values
        if masked:
            scores[:, -masked:] = MASKED
        lists += [picked, scores]
    return rows, ages, values, groups, *lists


def _padded(table: Tensor) -> Tensor:
    return torch.cat([table, torch.zeros(1, table.shape[1], dtype=table.dtype)])
