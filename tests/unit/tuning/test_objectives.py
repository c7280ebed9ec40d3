"""Real models as objectives, on blocks of synthetic events."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from core.dataset import Dataset
from core.errors import SettingsError, TrainingError
from core.settings import Settings, change_settings, load_settings
from tests.suites.recall_data import block_dataset
from tests.unit.ranking.worlds import block_dataset as ranking_world
from training.models.gat import fit_gat
from training.tuning.costs import measure_latency, size_bytes
from training.tuning.objective import Measurement
from training.tuning.ranker_objective import RankerJob, RankerObjective
from training.tuning.recall_objective import RecallJob, RecallObjective
from training.tuning.scoring import UserValues, mean_over_windows, metric_of, score_window

NOWHERE = Path("nowhere")
QUICK = ("mf.epochs=3", "gat.epochs=4", "tune.windows=2", "recall.candidates=20", "train.threads=1")


def settings(*overrides: str) -> Settings:
    return load_settings((), (*QUICK, *overrides))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return block_dataset(sessions=4)


def objective(model: str, dataset: Dataset, *overrides: str, timed: bool = False) -> RecallObjective:
    return RecallObjective(RecallJob(model, settings(*overrides), NOWHERE, timed), dataset)


def silent(step: int, quality: float) -> None:
    pass


def with_other_test_events(dataset: Dataset) -> Dataset:
    """The same train and valid; test events of other items, values and times."""
    events, test = dataset.events, dataset.events.splits == 2
    rng = np.random.default_rng(7)
    items = np.where(test, rng.integers(0, dataset.n_items, len(events)), events.item_rows).astype(np.int32)
    times = np.where(test, events.timestamps + 1e7, events.timestamps)
    raw = np.where(test, 1.0, events.raw_values).astype(np.float32)
    return replace(dataset, events=replace(events, item_rows=items, timestamps=times, raw_values=raw))


@pytest.mark.parametrize("model", ["mf", "gat"])
def test_test_events_change_no_value(dataset: Dataset, model: str) -> None:
    one = objective(model, dataset).measure({}, silent)
    two = objective(model, with_other_test_events(dataset)).measure({}, silent)
    assert one == two


def test_events_after_a_window_change_nothing_in_it(dataset: Dataset) -> None:
    events = dataset.events
    made = objective("mf", dataset)
    after_first = events.timestamps > made._rolling.windows[0].future.timestamps.max()
    items = np.where(after_first, (events.item_rows + 31) % dataset.n_items, events.item_rows).astype(np.int32)
    changed = objective("mf", replace(dataset, events=replace(events, item_rows=items)))
    one, two = (part.measure({}, silent).details["windows"] for part in (made, changed))
    assert one["window 1"] == two["window 1"]
    assert one["window 2"] != two["window 2"]


def test_measuring_twice_gives_the_same(dataset: Dataset) -> None:
    made = objective("mf", dataset)
    assert made.measure({"mf.dimension": 8}, silent) == made.measure({"mf.dimension": 8}, silent)


def test_quality_is_the_mean_of_the_windows(dataset: Dataset) -> None:
    found = objective("mf", dataset).measure({}, silent)
    means = [window["ndcg@10"] for window in found.details["windows"].values()]
    assert found.values["quality"] == pytest.approx(np.mean(means), abs=1e-6)


def test_trained_model_is_far_better_than_an_untrained_graph(dataset: Dataset) -> None:
    made = objective("mf", dataset)
    good, bad = made.measure({}, silent), made.measure({"mf.dimension": 1, "mf.epochs": 1}, silent)
    assert good.values["quality"] > 1.5 * bad.values["quality"]


def test_other_metric_is_used(dataset: Dataset) -> None:
    found = objective("mf", dataset, "tune.metric=recall@5").measure({}, silent)
    assert "recall@5" in next(iter(found.details["windows"].values()))


def test_size_is_that_of_all_weights(dataset: Dataset) -> None:
    small, large = (objective("mf", dataset).measure({"mf.dimension": d}, silent).values["size_bytes"] for d in (8, 16))
    assert large - small == (dataset.n_items + 1) * 8 * 4 + 8 * 4  # item vectors, and the spectrum


def test_latency_is_measured_where_asked(dataset: Dataset) -> None:
    made = objective("mf", dataset, timed=True)
    baseline = made.measure({}, silent)
    made.anchor(baseline)
    assert made.measure({"mf.dimension": 4}, silent).values["latency_ms"] > 0


def test_latency_is_told_against_the_reference() -> None:
    ticks = itertools.count()
    waits = {"model": 3, "reference": 2}

    def answer(name: str) -> None:
        for _ in range(waits[name] - 1):
            next(ticks)

    timing = measure_latency(lambda: answer("model"), lambda: answer("reference"), clock=lambda: next(ticks) / 1000)
    assert timing.latency_ms == pytest.approx(3.0)
    assert timing.against(10.0) == pytest.approx(15.0)
    assert timing.against(None) == pytest.approx(3.0)


def test_gat_reports_between_its_epochs_and_mf_after_each_window(dataset: Dataset) -> None:
    steps: dict[str, list[int]] = {"mf": [], "gat": []}
    for model, seen in steps.items():
        objective(model, dataset).measure({}, lambda step, quality, seen=seen: seen.append(step))
    assert steps == {"mf": [4, 8], "gat": [1, 2, 3, 4, 5, 6, 7, 8]}


def test_looking_at_gat_changes_nothing(dataset: Dataset) -> None:
    made = [
        fit_gat(dataset, dataset.events.of_splits(("train",)), settings(), seed=0, **more).state_dict()
        for more in ({}, {"after_epoch": lambda share, making: making()})
    ]
    for name, tensor in made[0].items():  # with several threads the last bits differ from run to run
        torch.testing.assert_close(tensor, made[1][name], atol=1e-6, rtol=1e-5)


def test_trial_ends_where_its_report_says_so(dataset: Dataset) -> None:
    def refuse(step: int, quality: float) -> None:
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        objective("gat", dataset).measure({}, refuse)


def test_diverging_training_is_an_expected_error(dataset: Dataset) -> None:
    with pytest.raises(TrainingError, match="diverged"):
        objective("gat", dataset).measure({"gat.table_rate": 1e30, "gat.scalar_rate": 1e30}, silent)


def test_data_without_times_are_measured_in_folds() -> None:
    made = objective("mf", block_dataset(has_times=False))
    assert made.scheme == "2 folds of each user's events"
    assert set(made.measure({}, silent).details["windows"]) == {"fold 1", "fold 2"}


@pytest.mark.parametrize(
    ("metric", "told"),
    [("ndgc@10", "unknown metric"), ("ndcg", "unknown metric"), ("ndcg@0", "unknown metric"), ("ndcg@21", "further")],
)
def test_metric_that_cannot_be_measured_is_refused(metric: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        metric_of(metric, 20)


def standard_error(*scored: UserValues) -> float:
    return float(np.linalg.norm(mean_over_windows(scored)[1]))


def test_standard_error_of_one_window_is_the_usual_one() -> None:
    values = np.random.default_rng(0).random(50)
    assert mean_over_windows([UserValues(np.arange(50), values)])[0] == pytest.approx(values.mean())
    assert standard_error(UserValues(np.arange(50), values)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_users_of_two_windows_count_once_in_the_standard_error() -> None:
    values = np.random.default_rng(0).random(50)
    one, two = UserValues(np.arange(50), values), UserValues(np.arange(50, 100), values)
    assert standard_error(one, one) == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    assert standard_error(one, two) == pytest.approx(standard_error(one) / np.sqrt(2), rel=0.02)


def test_deviations_give_the_standard_error_of_a_paired_difference(dataset: Dataset) -> None:
    made = objective("mf", dataset, "tune.windows=1")
    one, two = made.measure({"mf.dimension": 8}, silent), made.measure({"mf.dimension": 2}, silent)
    window, rng = made._rolling.windows[0], np.random.default_rng(0)
    values = [
        score_window(
            made._fit(change_settings(settings("tune.windows=1"), {"mf.dimension": size}), window, None),
            dataset, window, "ndcg@10", max_users=5_000, rng=rng,
        ).values
        for size in (8, 2)
    ]  # fmt: skip
    gaps = values[0] - values[1]
    assert one.deviations is not None
    assert two.deviations is not None
    expected = gaps.std(ddof=1) / np.sqrt(len(gaps))
    assert np.linalg.norm(one.deviations - two.deviations) == pytest.approx(expected)


@pytest.fixture(scope="module")
def ranker() -> RankerObjective:
    made = settings("ranker.epochs=2", "ranker.hidden=[8]", "ranker.content_dimension=4")
    return RankerObjective(RankerJob(made, NOWHERE, timed=True), ranking_world())


@pytest.fixture(scope="module")
def ranked(ranker: RankerObjective) -> Measurement:
    return ranker.measure({}, silent)


def test_ranker_is_measured_by_its_held_out_window(ranked: Measurement) -> None:
    assert ranked.values["quality"] == ranked.details["metrics"]["ndcg@10_ranker"]
    assert ranked.values["latency_ms"] > 0
    assert ranked.standard_error == ranked.details["metrics"]["network_gain_standard_error"]


def test_rankers_of_one_search_share_their_recall(ranker: RankerObjective, ranked: Measurement) -> None:
    before = dict(ranker._known)
    larger = ranker.measure({"ranker.hidden": [16]}, silent)
    assert ranker._known == before
    assert larger.values["size_bytes"] > ranked.values["size_bytes"]


def test_test_events_change_no_ranker(ranked: Measurement) -> None:
    made = settings("ranker.epochs=2", "ranker.hidden=[8]", "ranker.content_dimension=4")
    other = RankerObjective(RankerJob(made, NOWHERE), with_other_test_events(ranking_world()))
    assert other.measure({}, silent).details == ranked.details


def test_size_counts_buffers_and_parameters(ranker: RankerObjective) -> None:
    assert size_bytes(torch.nn.BatchNorm1d(4)) == 4 * 4 * 4 + 8
