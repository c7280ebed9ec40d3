"""The train stage warms cold items, keeps the tower, and starts from another one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from core.artifacts import Artifact, latest_artifact, load_artifact
from core.dataset import load_dataset
from core.errors import ArtifactError
from core.settings import Settings, load_settings
from tests.suites.recall_suite import requests
from tests.unit.content.worlds import COLD, NAMES, block_of, content_dataset, without_cold
from training.content.inputs import content_inputs
from training.content.lessons import make_lessons
from training.content.transfer import load_start, started_tower
from training.content.warm import warm_cold_items
from training.data.stage import build_dataset
from training.models.mf import fit_mf
from training.models.recall import load_model
from training.stage import train


def settings_for(folder: Path, *overrides: str) -> Settings:
    files = [f'data.{name}="{folder / f"{name}.csv"}"' for name in ("events", "items")]
    return load_settings(
        (),
        (
            "data.source=files",
            f'paths.var="{folder / "var"}"',
            *files,
            'train.fit=["train"]',
            "content.enabled=true",
            "content.exposure=1",
            *overrides,
        ),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The blocks as files, trained."""
    folder = tmp_path_factory.mktemp("blocks")
    dataset = content_dataset()
    events = without_cold(dataset)
    with (folder / "events.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("user_id", "item_id", "timestamp", "split"))
        columns = (dataset.users.ids[events.user_rows], dataset.items.ids[events.item_rows], events.timestamps)
        writer.writerows((*row, "train") for row in zip(*columns, strict=True))
    with (folder / "items.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("item_id", "block"))
        writer.writerows(
            (dataset.items.ids[row], NAMES[block_of(np.array(row))]) for row in range(len(dataset.items) - 3)
        )
    build_dataset(settings_for(folder))
    train(settings_for(folder), models=("mf",))
    return folder


@pytest.fixture(scope="module")
def tower(folder: Path) -> Artifact:
    return latest_artifact(folder / "var", "content")


def test_trained_model_recommends_items_that_nobody_met(folder: Path) -> None:
    artifact = latest_artifact(folder / "var", "mf")
    dataset = load_dataset(latest_artifact(folder / "var", "dataset"))
    cold = np.flatnonzero(np.bincount(dataset.events.item_rows, minlength=dataset.n_items) == 0)
    rows, _ = load_model(artifact)(*requests(dataset, 100, 64))
    assert len(cold) >= len(COLD)
    assert np.isin(rows[:, :10].numpy(), cold).any()
    assert artifact.manifest.metrics["content"]["helps"]


def test_tower_is_an_artefact_that_names_its_model(folder: Path, tower: Artifact) -> None:
    tower.verify()
    assert tower.manifest.tensors["model"] == "mf"
    assert tower.manifest.parents["mf"] == latest_artifact(folder / "var", "mf").manifest.digest()


def test_start_needs_a_content_artefact_of_the_same_width(folder: Path, tower: Artifact) -> None:
    with pytest.raises(ArtifactError, match="not a content artefact"):
        load_start(latest_artifact(folder / "var", "mf"))
    with pytest.raises(ArtifactError, match="another width"):
        train(settings_for(folder, f'content.start="{tower.path}"', "content.dimension=8"), models=("mf",))


def test_start_carries_values_over_by_their_name(tower: Artifact) -> None:
    start = load_start(load_artifact(tower.path))
    other = content_dataset(seed=3, names=NAMES[::-1])  # the same values under other codes
    settings = Settings()
    model = fit_mf(other, without_cold(other), settings, seed=0)
    lessons = make_lessons(
        model,
        other,
        without_cold(other),
        least_events=5,
        held_out_share=0.1,
        max_users=500,
        rng=np.random.default_rng(0),
    )
    inputs = content_inputs(other, settings)
    begun = started_tower(start, inputs, lessons, settings.content)
    (column,) = (entry for entry in start.codebook.columns if entry.column.name == "block")
    for name in NAMES:
        ours, theirs = 1 + inputs.codebook.columns[0].values.index(name), 1 + column.values.index(name)
        np.testing.assert_array_equal(begun.values[ours].detach(), start.weights["values"][theirs])


def test_start_helps_a_catalogue_with_few_users(tower: Artifact) -> None:
    other = content_dataset(seed=5, names=NAMES[::-1])
    few = without_cold(other)
    few = few.where(few.user_rows < 12)
    settings = load_settings(
        (), ("content.enabled=true", "content.steps=0", "content.least_events=1", "content.held_out=0.3")
    )
    model = fit_mf(other, few, settings, seed=0)
    plain, begun = (
        warm_cold_items(model, other, few, settings, seed=0, start=start).metrics["ndcg@10_held_out"]
        for start in (None, load_start(tower))
    )
    assert begun >= plain
