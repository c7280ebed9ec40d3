"""A planted attribute decides what users do next, another is noise: the report has to tell them apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.dataset import Dataset, Events
from core.errors import TrainingError
from core.features import FeatureColumn, FeatureTable
from core.sections import FeatureSettings
from core.settings import Settings, load_settings
from core.vocabulary import Vocabulary
from pipeline.features import as_toml, suggest
from training.ranking.facts import FeatureFacts, feature_facts, information_bits
from training.ranking.importance import Contribution, Drop, Importance, feature_importance

DAY = 86_400.0
N_USERS, N_ITEMS, PAST, NEXT = 240, 60, 10, 3
SETTINGS = load_settings(
    (),
    (
        'recall.sources=["mf"]', "recall.candidates=40", "mf.dimension=8", "mf.epochs=3", "ranker.epochs=6",
        "ranker.learning_rate=0.02", "ranker.batch_users=8", "ranker.hidden=[16]",
        'features.statistics=["age"]', "train.threads=1", 'train.fit=["train"]',
    ),
)  # fmt: skip


def planted_world(seed: int = 0) -> Dataset:
    """Pasts are random; all that follows in the last fifth of time is of planted kind 1, a third of the items."""
    rng = np.random.default_rng(seed)
    planted, noise = 1 + rng.permutation(N_ITEMS) % 3, 1 + rng.permutation(N_ITEMS) % 3
    wanted = np.flatnonzero(planted == 1)
    users, items, times = [], [], []
    for user in range(N_USERS):
        past = rng.choice(N_ITEMS, PAST, replace=False)
        following = rng.choice(np.setdiff1d(wanted, past), NEXT, replace=False)
        users += [user] * (PAST + NEXT)
        items += [*past, *following]
        times += [*rng.uniform(0, 77, PAST), *rng.uniform(77, 100, NEXT)]
    order = np.argsort(times)
    count = len(order)
    events = Events(
        np.array(users, np.int32)[order],
        np.array(items, np.int32)[order],
        np.array(times)[order] * DAY,
        np.zeros(count, np.float32),
        np.full(count, np.nan, np.float32),
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint8),
    )
    columns = tuple(FeatureColumn(name, "category", 4, 1) for name in ("planted", "noise"))
    group = FeatureTable((FeatureColumn("group", "category", 4, 1),), rng.integers(0, 4, (N_USERS, 1), dtype=np.int32))
    return Dataset(
        events,
        Vocabulary([f"u{row}" for row in range(N_USERS)]),
        Vocabulary([f"i{row}" for row in range(N_ITEMS)]),
        np.array([f"Item {row}" for row in range(N_ITEMS)], dtype=object),
        group,
        FeatureTable(columns, np.stack([planted, noise], 1).astype(np.int32)),
        True,
        False,
    )


@pytest.fixture(scope="module")
def world() -> Dataset:
    return planted_world()


@pytest.fixture(scope="module")
def importance(world: Dataset) -> Importance:
    return feature_importance(world, SETTINGS, seed=0, repeats=3)


@pytest.fixture(scope="module")
def facts(world: Dataset, importance: Importance) -> dict[tuple[str, str], FeatureFacts]:
    return dict(feature_facts(world, importance.examples))


def named(importance: Importance, name: str) -> Contribution:
    return next(found for found in importance.contributions if found.name == name)


def test_planted_attribute_contributes_clearly_and_noise_does_not(importance: Importance) -> None:
    planted, noise = named(importance, "planted"), named(importance, "noise")
    assert planted.auc.mean > 8 * planted.auc.standard_error > 0
    assert planted.ndcg.mean > 3 * planted.ndcg.standard_error > 0
    assert abs(noise.auc.mean) < planted.auc.mean / 8
    assert abs(noise.ndcg.mean) < planted.ndcg.mean / 4


def test_every_feature_is_measured_once(world: Dataset, importance: Importance) -> None:
    names = [(found.kind, found.name) for found in importance.contributions]
    assert names[:3] == [("item", "planted"), ("item", "noise"), ("user", "group")]
    assert len(names) == len(set(names)) == 9


def test_information_is_in_the_planted_attribute(facts: dict[tuple[str, str], FeatureFacts]) -> None:
    assert facts["item", "planted"].information_bits > 0.04
    assert facts["item", "noise"].information_bits < 0.01
    assert facts["item", "planted"].values == 3


def test_missing_counts_rows_without_a_code(world: Dataset, facts: dict[tuple[str, str], FeatureFacts]) -> None:
    unknown = (world.user_features.codes[:, 0] == 0).mean()
    assert facts["user", "group"].missing == pytest.approx(unknown)
    assert facts["item", "planted"].missing == 0


def test_independent_columns_share_no_information() -> None:
    rng = np.random.default_rng(0)
    assert information_bits(rng.integers(0, 9, 20_000), rng.integers(0, 2, 20_000)) < 1e-3


def test_suggestion_keeps_what_is_clear_and_can_be_taken_as_settings(tmp_path: Path) -> None:
    clear, unclear = Drop(0.2, 0.1), Drop(0.05, 0.1)
    contributions = (
        Contribution("item", "planted", clear, unclear),
        Contribution("item", "noise", unclear, unclear),
        Contribution("user", "group", unclear, Drop(-0.3, 0.1)),
        Contribution("statistic", "popularity", unclear, clear),
        Contribution("statistic", "trend", unclear, unclear),
    )
    chosen = suggest(FeatureSettings(skip_items=("old",)), contributions)
    file = tmp_path / "features.toml"
    file.write_text(as_toml(chosen))
    settings: Settings = load_settings((file,))
    assert settings.features == chosen
    assert chosen.skip_items == ("old", "noise")
    assert chosen.skip_users == ("group",)
    assert chosen.statistics == ("popularity",)


def test_statistics_left_out_of_the_settings_contribute_nothing(importance: Importance) -> None:
    for name in ("popularity", "trend", "mean_value"):
        assert named(importance, name).auc == Drop(0.0, 0.0)


def test_data_without_later_events_is_refused(world: Dataset) -> None:
    first = world.events.where(np.unique(world.events.user_rows, return_index=True)[1])
    alone = Dataset(**(vars(world) | {"events": first}))
    with pytest.raises(TrainingError, match="too few users"):
        feature_importance(alone, SETTINGS, seed=0, repeats=1)


def test_command_writes_report_page_and_settings(smoke_settings: Settings, tmp_path: Path) -> None:
    from core.sections import PathSettings
    from pipeline.console import Terminal
    from pipeline.features import report_features
    from training.data.stage import build_dataset

    small = smoke_settings.model_copy(
        update={"paths": PathSettings(var=tmp_path / "var"), "recall": SETTINGS.recall, "mf": SETTINGS.mf}
    )
    build_dataset(small)
    report = report_features(small, tmp_path / "out", 1, Terminal())
    assert json.loads((tmp_path / "out" / "features.json").read_text()) == json.loads(json.dumps(report))
    page = (tmp_path / "out" / "features.md").read_text()
    assert all(feature["name"] in page for feature in report["features"])
    taken = load_settings((tmp_path / "out" / "features.toml",)).features
    assert list(taken.skip_items) == report["suggested"]["skip_items"]
