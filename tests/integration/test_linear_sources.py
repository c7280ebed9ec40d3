"""The whole chain with other recall sources than the default ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.histories import pad
from core.metrics import hits, ndcg, truth_of
from serving.local import LocalPipeline
from training.models.recall import load_model

FIT = ("train", "valid")
SOURCES = ("mf", "ease", "spectral")


@pytest.fixture(scope="module")
def pipeline(linear_var: Path) -> Iterator[LocalPipeline]:
    with LocalPipeline(latest_artifact(linear_var, "release").path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def dataset(linear_var: Path) -> Dataset:
    return load_dataset(parent_artifact(latest_artifact(linear_var, "release"), linear_var, "dataset"))


def test_release_holds_the_chosen_sources_and_no_others(pipeline: LocalPipeline) -> None:
    assert tuple(pipeline.info.sources) == SOURCES


@pytest.mark.parametrize("source", SOURCES)
def test_served_source_lists_what_its_model_lists(
    source: str, pipeline: LocalPipeline, dataset: Dataset, linear_var: Path
) -> None:
    users = np.arange(0, dataset.n_users, 10)
    padded = pad(dataset.histories(FIT).select(users), dataset.n_items)
    parts = (padded.rows, padded.ages, padded.values, padded.kinds, padded.exclude)
    features = torch.zeros(len(users), 1, dtype=torch.int64)
    expected, scores = load_model(latest_artifact(linear_var, source))(*map(torch.from_numpy, parts), features)
    found = pipeline.recommend_rows(list(dataset.users.ids[users]), 10, stage=source)
    gaps = scores.diff(dim=1)[:, :10].abs().numpy()
    apart = (gaps > 1e-4) & (np.roll(gaps, 1, axis=1) > 1e-4)  # only ties may change places
    assert apart.mean() > 0.9
    np.testing.assert_array_equal(found[apart], expected[:, :10].numpy()[apart])


def test_pipeline_finds_what_users_took_later(pipeline: LocalPipeline, dataset: Dataset) -> None:
    later = dataset.events.of_splits(("test",))
    users = np.unique(later.user_rows)
    truth = truth_of(np.searchsorted(users, later.user_rows), later.item_rows, len(users))
    quality = {
        stage: ndcg(hits(pipeline.recommend_rows(list(dataset.users.ids[users]), 10, stage=stage), truth),
                    truth.sizes, 10).mean()
        for stage in ("popularity", "pipeline")
    }  # fmt: skip
    assert quality["pipeline"] > quality["popularity"]
