"""The expansion keeps what its base is like, at any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.progress import SILENT
from core.sections import DataSettings
from training.data import fractal
from training.data.fractal import Expansion, cell_rates, expand_cached
from training.data.raw import RawEvents
from training.data.synthetic import make_synthetic


@pytest.fixture(scope="module")
def base() -> RawEvents:
    return make_synthetic(DataSettings(synthetic_events=20_000, synthetic_users=400, synthetic_items=300))[0]


@pytest.fixture(scope="module")
def expanded(base: RawEvents) -> pa.Table:
    return pa.concat_tables(Expansion.of(base, 1_000_000, 3).parts()).unify_dictionaries()


def counts(column: pa.ChunkedArray) -> np.ndarray:
    return np.sort(column.combine_chunks().value_counts().field("counts").to_numpy())[::-1]


def test_expansion_has_about_as_many_events_each_pair_once(expanded: pa.Table) -> None:
    assert len(expanded) == pytest.approx(1_000_000, rel=0.01)
    pairs = expanded.select(["user_id", "item_id"]).cast(pa.schema({"user_id": pa.string(), "item_id": pa.string()}))
    assert pairs.group_by(["user_id", "item_id"]).aggregate([]).num_rows == len(expanded)


def test_lengths_of_histories_are_those_of_the_base(base: RawEvents, expanded: pa.Table) -> None:
    theirs, ours = np.bincount(base.users.codes), counts(expanded["user_id"])
    theirs = theirs[theirs > 0]
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.quantile(ours, share) == pytest.approx(np.quantile(theirs, share), rel=0.15, abs=2)


def test_popularity_keeps_its_shape(base: RawEvents, expanded: pa.Table) -> None:
    theirs, ours = np.sort(np.bincount(base.items.codes))[::-1], counts(expanded["item_id"])
    share = lambda found, top: found[: max(1, int(top * len(found)))].sum() / found.sum()  # noqa: E731
    for top in (0.01, 0.05, 0.2, 0.5):
        assert share(ours, top) == pytest.approx(share(theirs, top), rel=0.25)


def test_values_are_those_of_the_base_and_times_near_it(base: RawEvents, expanded: pa.Table) -> None:
    assert base.values is not None
    assert base.timestamps is not None
    assert np.mean(expanded["value"].to_numpy()) == pytest.approx(base.values.mean(), abs=0.05)
    times = expanded["timestamp"].to_numpy()
    assert times.min() >= base.timestamps.min() - fractal.SHIFT_SECONDS
    assert times.max() <= base.timestamps.max() + fractal.SHIFT_SECONDS + fractal.JITTER_SECONDS


def test_rates_follow_the_leading_singular_vectors() -> None:
    rng = np.random.default_rng(0)
    tastes = np.zeros((60, 80))
    tastes[:30, :40] = tastes[30:, 40:] = 1
    rates = cell_rates(tastes * (rng.random((60, 80)) < 0.5), 6, 4)
    np.testing.assert_allclose(rates.sum(axis=1), 1)
    assert rates[:3, :2].mean() > 3 * rates[:3, 2:].mean()
    assert rates[3:, 2:].mean() > 3 * rates[3:, :2].mean()


def test_kept_places_are_distinct_and_as_many_as_the_rate_says() -> None:
    rng = np.random.default_rng(1)
    for rate in (0.003, 0.4, 1.0):
        places = fractal._kept(100_000, rate, rng)
        assert (np.diff(places) > 0).all()
        assert places[0] >= 0
        assert places[-1] < 100_000
        assert len(places) == pytest.approx(100_000 * rate, abs=5 * np.sqrt(100_000 * rate) + 1)


def test_files_are_made_once_and_by_the_seed(base: RawEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fractal, "GROUP_ROWS", 10_000)
    monkeypatch.setattr(fractal, "FILE_GROUPS", 2)
    folder = expand_cached(base, 60_000, 0, tmp_path, SILENT)
    assert len(list(folder.iterdir())) > 1
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert expand_cached(base, 60_000, 0, tmp_path, SILENT) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    again = expand_cached(base, 60_000, 0, tmp_path / "again", SILENT)
    assert pq.read_table(folder).equals(pq.read_table(again))
    other = expand_cached(base, 60_000, 1, tmp_path, SILENT)
    assert not pq.read_table(folder).equals(pq.read_table(other))
