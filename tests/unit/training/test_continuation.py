"""Going on: a killed run ends with the weights of an uninterrupted one, an incremental run starts near the champion."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.dataset import Dataset, load_dataset
from core.progress import Progress
from core.settings import Settings, change_settings
from training.checkpoints import Checkpoint, Checkpoints
from training.continuation import Continuation, aligned, mixed_learners, only
from training.data.stage import build_dataset
from training.models.gat import fit_gat
from training.models.mf import fit_mf
from training.models.recall_base import RecallModel

SMALL = {
    "data.source": "synthetic",
    "data.synthetic_users": 120,
    "data.synthetic_items": 60,
    "data.synthetic_events": 1_500,
    "gat.epochs": 4,
    "gat.dimension": 8,
    "gat.batch_users": 32,
    "mf.dimension": 8,
    "mf.epochs": 4,
    "recall.candidates": 20,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Dataset]:
    settings = change_settings(Settings(), {**SMALL, "paths.var": tmp_path_factory.mktemp("var")})
    return settings, load_dataset(build_dataset(settings))


def digest(model: RecallModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def gat(settings: Settings, dataset: Dataset, continuation: Continuation) -> RecallModel:
    events = dataset.events.of_splits(settings.train.fit)
    return fit_gat(dataset, events, settings, seed=1, continuation=continuation)


class KillsItself(Checkpoints):
    """Ends the process by SIGKILL in the middle of an epoch: after the checkpoint of the second, before the next."""

    def save(self, checkpoint: Checkpoint) -> None:
        super().save(checkpoint)
        if checkpoint.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def _train_and_die(settings: Settings, dataset: Dataset, folder: Path) -> None:
    torch.set_num_threads(1)
    gat(settings, dataset, Continuation(checkpoints=KillsItself(folder, "run")))


def test_killed_run_ends_with_the_same_weights(world: tuple[Settings, Dataset], tmp_path: Path) -> None:
    settings, dataset = world
    torch.set_num_threads(1)
    process = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(settings, dataset, tmp_path))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert Checkpoints(tmp_path, "run").newest().step == 2  # type: ignore[union-attr]
    resumed = gat(settings, dataset, Continuation(checkpoints=Checkpoints(tmp_path, "run")))
    assert digest(resumed) == digest(gat(settings, dataset, Continuation()))


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("damage", ["truncate", "flip", "no state"])
def test_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    notes = Notes()
    checkpoints = Checkpoints(tmp_path, "run", notes)
    for step in (1, 2, 3):
        checkpoints.save(Checkpoint(step, {"a": torch.full((4,), float(step))}, {}))
    newest = tmp_path / "run" / "000003"
    file = newest / "tensors.safetensors"
    body = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(body[: len(body) // 2])
    elif damage == "flip":
        file.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    else:
        (newest / "state.json").write_text("{")
    found = checkpoints.newest()
    assert found is not None
    assert (found.step, found.tensors["a"].tolist()) == (2, [2.0] * 4)
    assert any("damaged" in line for line in notes.lines)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "run")
    for step in range(5):
        checkpoints.save(Checkpoint(step, {"a": torch.zeros(1)}, {}))
    assert len(list((tmp_path / "run").iterdir())) == 2
    assert Checkpoints(tmp_path, "another").newest() is None
    checkpoints.remove()
    assert checkpoints.newest() is None


@pytest.mark.parametrize("fit", [fit_mf, fit_gat])
def test_same_inputs_give_the_same_weights(world: tuple[Settings, Dataset], fit: Callable[..., RecallModel]) -> None:
    settings, dataset = world
    events = dataset.events.of_splits(settings.train.fit)
    torch.set_num_threads(1)
    first, second = (fit(dataset, events, settings, seed=3, continuation=Continuation()) for _ in range(2))
    assert digest(first) == digest(second)


def scores(model: RecallModel, rows: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros(rows.shape)
    codes = torch.zeros((len(rows), 1), dtype=torch.int64)
    return model.scores(rows, zeros, zeros, torch.zeros(rows.shape, dtype=torch.int64), codes)[:, :-1]


def test_incremental_gat_starts_near_the_champion_and_takes_new_items(world: tuple[Settings, Dataset]) -> None:
    settings, dataset = world
    kept = Continuation()
    champion = gat(settings, dataset, kept)
    old_rows = np.arange(dataset.n_items)
    old_rows[-5:] = -1
    short = change_settings(settings, {"gat.epochs": 1, "gat.table_rate": 1e-6, "gat.scalar_rate": 1e-6})
    warm = gat(short, dataset, Continuation(start=kept.kept, old_rows=old_rows))
    cold = gat(short, dataset, Continuation())
    rows = torch.arange(40).reshape(10, 4)
    of = [scores(model, rows)[:, :-5].flatten().numpy() for model in (champion, warm, cold)]
    assert np.corrcoef(of[0], of[1])[0, 1] > 0.99
    assert np.corrcoef(of[0], of[1])[0, 1] > np.corrcoef(of[0], of[2])[0, 1]
    assert torch.isfinite(warm.item_vectors).all()


def test_incremental_mf_needs_fewer_epochs(world: tuple[Settings, Dataset]) -> None:
    settings, dataset = world
    events = dataset.events.of_splits(settings.train.fit)
    champion = fit_mf(dataset, events, change_settings(settings, {"mf.epochs": 12}), seed=1)
    start = Continuation(start=dict(champion.state_dict()), old_rows=np.arange(dataset.n_items))
    one = change_settings(settings, {"mf.epochs": 1})
    rows = torch.arange(40).reshape(10, 4)
    goal = scores(champion, rows)
    warm = scores(fit_mf(dataset, events, one, seed=1, continuation=start), rows)
    cold = scores(fit_mf(dataset, events, one, seed=1), rows)
    assert (warm - goal).norm() < 0.3 * (cold - goal).norm()


def test_learners_are_new_users_and_a_share_of_old_ones(world: tuple[Settings, Dataset]) -> None:
    _, dataset = world
    since = float(np.quantile(dataset.events.timestamps, 0.9))
    fresh = np.unique(dataset.events.user_rows[dataset.events.timestamps > since])
    learners = mixed_learners(dataset, dataset.events, since, 0.3, np.random.default_rng(0))
    assert learners[fresh].all()
    assert 0.2 <= 1 - len(fresh) / learners.sum() <= 0.3 + 1e-9
    histories = dataset.histories(("train", "valid", "test"))
    left = only(histories, learners)
    assert (left.lengths[~learners] == 0).all()
    row = int(np.flatnonzero(learners)[0])
    assert left.of(row).item_rows.tolist() == histories.of(row).item_rows.tolist()


def test_rotation_aligns_bases() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(30, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    np.testing.assert_allclose(table @ turn @ aligned(table @ turn, table), table, atol=1e-9)
