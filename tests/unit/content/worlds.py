"""Blocks of items that their content names: users stay in their block, so an unknown item has a right answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.codebook import Codebook, ColumnCodes
from core.content import DenseBlock, ItemContent
from core.dataset import Dataset, Events
from core.features import FeatureColumn, FeatureTable
from tests.suites.recall_data import BLOCKS, ITEMS_PER_BLOCK, SESSION_EVENTS, SESSIONS, block_dataset

N_ITEMS = BLOCKS * ITEMS_PER_BLOCK
NAMES = tuple(f"block {block}" for block in range(BLOCKS))
COLD = np.concatenate([np.arange(3, 6) + block * ITEMS_PER_BLOCK for block in range(BLOCKS)])
"""Three popular items of each block, whose events are taken away."""


def block_of(rows: np.ndarray) -> np.ndarray:
    return rows // ITEMS_PER_BLOCK


def content_dataset(
    seed: int = 0, *, codes: bool = True, image: bool = False, texts: bool = False, names: tuple[str, ...] = NAMES
) -> Dataset:
    """The blocks with a modality or more that tells an item's block; the last three items have no content at all."""
    dataset = block_dataset(seed)
    blocks = block_of(np.arange(N_ITEMS))
    column = FeatureColumn("block", "category", BLOCKS + 1, 1)
    noise = FeatureColumn("noise", "category", 4, 1)
    rng = np.random.default_rng(seed)
    table = np.zeros((dataset.n_items, 2), dtype=np.int32)
    if codes:
        order = np.argsort([NAMES.index(name) for name in names])  # code of each block when names are shuffled
        table[:N_ITEMS, 0] = 1 + order[blocks]
    table[:N_ITEMS, 1] = rng.integers(1, 4, N_ITEMS)
    vectors = np.zeros((dataset.n_items, 8), dtype=np.float32)
    vectors[:N_ITEMS] = np.eye(8, dtype=np.float32)[blocks] + 0.1 * rng.standard_normal((N_ITEMS, 8))
    present = np.arange(dataset.n_items) < N_ITEMS if image else np.zeros(dataset.n_items, dtype=bool)
    words = np.array(["winter snow", "summer beach", "spring flower", "autumn leaf"], dtype=object)
    text = np.full(dataset.n_items, "", dtype=object)
    if texts:
        text[:N_ITEMS] = [f"{words[block]} {row}" for row, block in enumerate(blocks)]
    return replace(
        dataset,
        item_features=FeatureTable((column, noise), table),
        item_codebook=Codebook((ColumnCodes(column, names), ColumnCodes(noise, ("x", "y", "z")))),
        item_content=ItemContent(
            text, {"image": DenseBlock(np.where(present[:, None], vectors, 0), present)} if image else {}
        ),
    )


def without_cold(dataset: Dataset) -> Events:
    """Train events, those of ``COLD`` taken away."""
    events = dataset.events.of_splits(("train",))
    return events.where(~np.isin(events.item_rows, COLD))


def home_blocks(events: Events, n_users: int) -> np.ndarray:
    """Each user's block: where most of the user's events lie."""
    counts = np.zeros((n_users, BLOCKS))
    np.add.at(counts, (events.user_rows, block_of(events.item_rows)), 1)
    return counts.argmax(1)


__all__ = ["BLOCKS", "COLD", "SESSIONS", "SESSION_EVENTS", "block_of", "content_dataset", "home_blocks", "without_cold"]
