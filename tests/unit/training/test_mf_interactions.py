"""Interactions built in blocks are, to the bit, those that sorting all events in memory gives."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from core import columns
from core.columns import ColumnWriter, read_column
from core.dataset import Dataset, Events, histories_of
from core.sections import MfSettings
from core.settings import Settings, load_settings
from tests.suites.recall_data import block_dataset
from training.models import mf_problem
from training.models.event_weights import EventWeighting
from training.models.mf import fit_mf
from training.models.mf_interactions import Weighted, weighted_interactions
from training.models.mf_model import length_factor
from training.models.mf_problem import Interactions, balanced_order

USERS, ITEMS = 40, 60
CHOSEN = MfSettings(value_slope=0.3, decay_days=20.0, return_after_days=3.0, return_boost=4.0, user_power=0.3)
KINDS = np.array([1.0, 2.5, 0.5])


@pytest.fixture(scope="module")
def events() -> Events:
    """In time order, with many equal times; users and items without events among them."""
    rng = np.random.default_rng(5)
    pairs = rng.choice((USERS - 3) * (ITEMS - 4), 700, replace=False)
    return Events(
        (pairs // (ITEMS - 4)).astype(np.int32),
        (pairs % (ITEMS - 4)).astype(np.int32),
        np.sort(rng.integers(0, 90, 700) * 43_200.0),
        rng.normal(size=700).astype(np.float32),
        np.zeros(700, np.float32),
        np.zeros(700, np.uint8),
        rng.integers(0, 3, 700).astype(np.uint8),
    )


def mapped(events: Events, folder: Path) -> Events:
    """The same in files."""
    found = {}
    for name in (field.name for field in fields(Events)):
        values = getattr(events, name)
        writer = ColumnWriter(folder / f"{name}.npy", values.dtype)
        writer.append(values)
        writer.close()
        found[name] = read_column(folder / f"{name}.npy")
    return Events(**found)


def in_memory(events: Events) -> Weighted:
    """By sorting, and by scipy's transposition."""
    histories = histories_of(events, USERS)
    lengths = histories.lengths
    weighting = EventWeighting.from_settings(CHOSEN, KINDS).scaled_to(histories)
    mean_length = float(lengths[lengths > 0].mean())
    factors = length_factor(np.maximum(lengths, 1), mean_length, CHOSEN.user_power)
    weights = weighting.of_histories(histories) * np.repeat(factors, lengths).astype(np.float32)
    matrix = sparse.csr_matrix((weights, histories.item_rows, histories.starts), shape=(USERS, ITEMS))
    return Weighted(_of(matrix), _of(matrix.T.tocsr()), weighting, mean_length)


def _of(matrix: sparse.csr_matrix) -> Interactions:
    mass = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    return Interactions(matrix.indptr, matrix.indices, matrix.data, mass, matrix.shape[1], np.zeros(0))


def assert_same(found: Weighted, expected: Weighted) -> None:
    assert (found.weighting, found.mean_length) == (expected.weighting, expected.mean_length)
    for mine, theirs in ((found.by_user, expected.by_user), (found.by_item, expected.by_item)):
        assert mine.n_columns == theirs.n_columns
        for name in ("starts", "columns", "weights", "mass"):
            ours, wanted = getattr(mine, name), getattr(theirs, name)
            assert ours.dtype == wanted.dtype, name
            np.testing.assert_array_equal(ours, wanted, err_msg=name)


@pytest.mark.parametrize("rows", [1 << 20, 64, 7])
@pytest.mark.parametrize("in_files", [False, True])
def test_interactions_are_those_of_sorted_histories(
    events: Events, rows: int, in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = in_memory(events)
    monkeypatch.setattr(columns, "BLOCK_ROWS", rows)
    monkeypatch.setattr(mf_problem, "BLOCK_ROWS", rows)
    given = mapped(events, tmp_path) if in_files else events
    found = weighted_interactions(given, USERS, ITEMS, CHOSEN, KINDS, tmp_path / "spill" if in_files else None)
    assert_same(found, expected)
    assert isinstance(found.by_user.columns, np.memmap) == in_files
    if in_files:
        assert not list((tmp_path / "spill").iterdir())


def test_events_out_of_order_are_put_in_order(events: Events) -> None:
    order = np.random.default_rng(0).permutation(len(events))
    shuffled = events.where(order)
    assert_same(weighted_interactions(shuffled, USERS, ITEMS, CHOSEN, KINDS), in_memory(shuffled))


def _settings(folder: Path) -> Settings:
    return load_settings((), ("mf.dimension=8", "mf.epochs=3", f'paths.var="{folder}"'))


def _world() -> Dataset:
    """Split by time, as data with times is."""
    dataset = block_dataset()
    return replace(dataset, events=replace(dataset.events, splits=np.sort(dataset.events.splits)))


def _fit(dataset: Dataset, folder: Path) -> dict[str, torch.Tensor]:
    events = dataset.events.of_splits(("train", "valid"))
    return fit_mf(dataset, events, _settings(folder), seed=0).state_dict()


def test_training_from_files_gives_the_same_model_to_the_bit(tmp_path: Path) -> None:
    dataset = _world()
    large = replace(dataset, events=mapped(dataset.events, tmp_path))
    assert large.events.of_splits(("train", "valid")).is_mapped
    expected, found = _fit(dataset, tmp_path), _fit(large, tmp_path)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_training_in_blocks_gives_the_same_model_but_for_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _world()
    expected = _fit(dataset, tmp_path)
    monkeypatch.setattr(columns, "BLOCK_ROWS", 50)
    monkeypatch.setattr(mf_problem, "BLOCK_ROWS", 50)
    found = _fit(replace(dataset, events=mapped(dataset.events, tmp_path)), tmp_path)
    ours, theirs = (state["item_vectors"][:-1] for state in (found, expected))
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["item_bias"], expected["item_bias"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 4_000, 40_000])
def test_every_row_has_its_turn_and_shares_of_the_order_hold_equal_shares_of_events(rows: int) -> None:
    lengths = np.sort(np.random.default_rng(0).lognormal(3.5, 1.0, rows).astype(np.int64))[::-1] - 3
    lengths = np.maximum(lengths, 0)
    order = balanced_order(np.concatenate([[0], np.cumsum(lengths)]))
    np.testing.assert_array_equal(np.sort(order), np.arange(rows))
    if rows > 1:
        halves = [lengths[half].sum() for half in np.array_split(order, 2)]
        assert max(halves) / lengths.sum() < (0.56 if rows < 10_000 else 0.52)
