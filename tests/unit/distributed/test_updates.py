"""Steps in parts and in lower precision, by one process: the same losses, or nearly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.dataset import Dataset
from core.sections import RankerSettings, TrainSettings
from core.settings import Settings, change_settings
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import FIT, RecordingProgress
from tests.unit.ranking.test_training import hidden_examples
from tests.unit.ranking.worlds import random_ranker
from training.distributed.dropout import BatchMasks, over_whole_batches
from training.distributed.sharing import Sharing
from training.models.gat import fit_gat
from training.ranking.training import train_network

RANKER = RankerSettings(learning_rate=0.01, dropout=0.3, batch_users=13)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return block_dataset()


def gat_losses(dataset: Dataset, **train: object) -> np.ndarray:
    seen = RecordingProgress()
    changes = {"gat.dimension": 8, "gat.batch_users": 31, "gat.epochs": 3}
    settings = change_settings(Settings(), {**changes, **{f"train.{key}": value for key, value in train.items()}})
    fit_gat(dataset, dataset.events.of_splits(FIT), settings, seed=0, progress=seen)
    return losses_of(seen, "gat")


def ranker_losses(**train: object) -> np.ndarray:
    seen, ranker = RecordingProgress(), random_ranker(trained=False)
    output = ranker.correction.members[0].network.output.weight  # 0 before training: dropout would change nothing
    torch.nn.init.normal_(output, std=0.1, generator=torch.Generator().manual_seed(1))
    train_network(
        ranker,
        (hidden_examples(ranker, seed=1),),
        RANKER,
        epochs=5,
        generator=torch.Generator().manual_seed(0),
        progress=seen,
        sharing=Sharing(train=TrainSettings(**train)),
    )
    return losses_of(seen, "ranker")


def losses_of(seen: RecordingProgress, model: str) -> np.ndarray:
    found = np.array([value for curve, _, value in seen.points if curve == f"first steps of {model}"])
    assert len(found) >= 15
    return found


@pytest.mark.parametrize("parts", [2, 20])
def test_gat_steps_in_parts_are_whole_steps(parts: int, dataset: Dataset) -> None:
    np.testing.assert_allclose(gat_losses(dataset, accumulate=parts), gat_losses(dataset), atol=1e-4)


@pytest.mark.parametrize("parts", [2, 20])
def test_ranker_steps_in_parts_leave_the_same_units_out(parts: int) -> None:
    np.testing.assert_allclose(ranker_losses(accumulate=parts), ranker_losses(), atol=1e-4)


def test_gat_in_bfloat16_is_near_but_not_the_same(dataset: Dataset) -> None:
    exact, rounded = gat_losses(dataset), gat_losses(dataset, precision="bfloat16")
    np.testing.assert_allclose(rounded, exact, rtol=0.02)
    assert not np.array_equal(rounded, exact)


def test_ranker_in_bfloat16_is_near_but_not_the_same() -> None:
    exact, rounded = ranker_losses(), ranker_losses(precision="bfloat16")
    np.testing.assert_allclose(rounded, exact, rtol=0.05)
    assert not np.array_equal(rounded, exact)


def test_dropout_layers_come_back_after_the_block() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    with over_whole_batches(network, BatchMasks()):
        assert not isinstance(network[1], torch.nn.Dropout)
    assert isinstance(network[1], torch.nn.Dropout)
