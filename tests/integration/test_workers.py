"""Several workers train what one process trains; a killed one is survived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.artifacts import Artifact, latest_artifact
from core.bootstrap import standard_error
from core.dataset import load_dataset
from core.errors import TrainingError
from core.metrics import hits, ndcg, truth_of
from core.progress import Silent
from core.settings import Settings, change_settings
from tests.workers_task import Fit
from training.checkpoints import Checkpoints
from training.continuation import Continuation
from training.data.stage import build_dataset
from training.distributed.group import ALONE
from training.distributed.launch import Seat, run_workers
from training.stage import train

MODELS = ("mf", "gat", "ranker")
CURVES = {"mf": "mf loss", "gat": "first steps of gat", "ranker": "first steps of ranker"}
FIRST_STEPS = 20
TOLERANCE = 1e-4


@dataclass(frozen=True)
class World:
    """Data and settings of all tests here."""

    data: Artifact
    settings: Settings

    def changed(self, **changes: object) -> Settings:
        return change_settings(self.settings, {f"train.{key}": value for key, value in changes.items()})


@dataclass(frozen=True)
class Trained:
    """What a run told and left, by model."""

    told: Notes
    tensors: dict[str, dict[str, torch.Tensor]]

    def losses(self, model: str) -> list[float]:
        """Of the first steps."""
        return [value for curve, _, value in self.told.points if curve == CURVES[model]][:FIRST_STEPS]

    def weights(self, model: str) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.tensors[model].items() if name != "lists"}


class Notes(Silent):
    """Keeps what a run told."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int, float]] = []
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def record(self, curve: str, step: int, value: float) -> None:
        self.points.append((curve, step, value))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    settings = change_settings(
        Settings(),
        {
            "paths.var": tmp_path_factory.mktemp("workers-var"),
            "data.source": "synthetic",
            "data.synthetic_users": 300,
            "data.synthetic_items": 120,
            "data.synthetic_events": 9_000,
            "mf.dimension": 8,
            "mf.epochs": 20,
            "gat.dimension": 8,
            "gat.epochs": 3,
            "gat.batch_users": 41,
            "ranker.windows": 2,
            "ranker.batch_users": 9,
            "ranker.epochs": 3,
            "recall.candidates": 20,
            "serving.max_k": 20,
            "train.threads": 2,
        },
    )
    return World(build_dataset(settings), settings)


def trained(
    world: World, settings: Settings, models: tuple[str, ...], dies_at: tuple[str, int] | None = None
) -> Trained:
    """Runs the models by the workers that the settings ask for."""
    told, task = Notes(), Fit(world.data.path, settings, models, dies_at)
    with _folder(task, settings, told) as folder:
        return Trained(told, {model: load_file(folder / f"{model}.safetensors") for model in models})


@contextmanager
def _folder(task: Fit, settings: Settings, told: Notes) -> Iterator[Path]:
    if settings.train.workers > 1:
        with run_workers(task, settings.train, settings.paths.var, told) as folder:
            yield folder
    else:
        folder = settings.paths.var / "alone"
        folder.mkdir(exist_ok=True)
        task(Seat(ALONE, "cpu", folder, told))
        yield folder


@pytest.fixture(scope="module")
def alone(world: World) -> Trained:
    return trained(world, world.settings, MODELS)


@pytest.fixture(scope="module", params=[2, 4], ids=lambda count: f"{count} workers")
def together(request: pytest.FixtureRequest, world: World) -> Trained:
    return trained(world, world.changed(workers=request.param), MODELS)


def ndcg_of_users(world: World, run: Trained, model: str) -> np.ndarray:
    dataset = load_dataset(world.data)
    later = dataset.events.of_splits(("test",))
    users, places = np.unique(later.user_rows, return_inverse=True)
    truth = truth_of(places, later.item_rows, len(users))
    return ndcg(hits(run.tensors[model]["lists"].numpy()[users, :10], truth), truth.sizes, 10)


@pytest.mark.parametrize("model", MODELS)
def test_first_losses_are_those_of_one_process(model: str, together: Trained, alone: Trained) -> None:
    assert len(alone.losses(model)) == FIRST_STEPS
    np.testing.assert_allclose(together.losses(model), alone.losses(model), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("model", MODELS)
def test_held_out_quality_is_that_of_one_process(model: str, together: Trained, alone: Trained, world: World) -> None:
    one, several = (ndcg_of_users(world, run, model) for run in (alone, together))
    assert abs(one.mean() - several.mean()) <= standard_error(one)


def test_workers_that_average_now_and_then_reach_the_same_quality(world: World, alone: Trained) -> None:
    settings = world.changed(workers=2, synchronisation="periodic", average_every=3, accumulate=2)
    apart = trained(world, settings, ("gat", "ranker"))
    for model in ("gat", "ranker"):
        one, several = (ndcg_of_users(world, run, model) for run in (alone, apart))
        assert abs(one.mean() - several.mean()) <= standard_error(one)
        assert apart.losses(model) != alone.losses(model)


@pytest.mark.parametrize(("model", "step"), [("mf", 9), ("gat", 17), ("ranker", 13)], ids=("mf", "gat", "ranker"))
def test_killed_worker_is_survived_and_changes_nothing(model: str, step: int, world: World, alone: Trained) -> None:
    run = trained(world, world.changed(workers=2), (model,), dies_at=(CURVES[model], step))
    assert any("newest checkpoint (1)" in line for line in run.told.lines)
    np.testing.assert_array_equal(run.tensors[model]["lists"], alone.tensors[model]["lists"])


def test_workers_that_die_again_and_again_end_the_run(world: World, tmp_path: Path) -> None:
    task = Fit(world.data.path, world.settings, ("nothing",))
    with (
        pytest.raises(TrainingError, match=r"again and again[\s\S]*nothing"),
        run_workers(task, world.changed(workers=2, restarts=0).train, tmp_path, Silent()),
    ):
        pass


def test_diverging_run_ends_with_its_own_error_and_no_artefact(world: World) -> None:
    wild = change_settings(world.changed(workers=2), {"gat.table_rate": 1e30, "gat.scalar_rate": 1e30})
    with pytest.raises(TrainingError, match=r"gat diverged[\s\S]*gat\.table_rate"):
        train(wild, models=("gat",))
    assert not list((wild.paths.var / "artifacts").glob("gat/*"))
    assert not list((wild.paths.var / "workers").iterdir())


def test_train_by_workers_writes_the_artefact_of_one_process(world: World) -> None:
    runs = []
    for count in (1, 2):
        train(world.changed(workers=count), models=("mf",))
        runs.append(latest_artifact(world.settings.paths.var, "mf").manifest)
    one, two = (np.array(run.metrics["curves"]["mf loss"]) for run in runs)
    np.testing.assert_allclose(one, two, atol=TOLERANCE)
    assert runs[0].tensors.keys() == runs[1].tensors.keys()
    assert [record.path for record in runs[0].files] == [record.path for record in runs[1].files]


def test_workers_go_on_from_an_earlier_network_as_one_process_does(world: World, tmp_path: Path) -> None:
    earlier = Continuation()
    train(world.settings, models=("gat",), continuations={"gat": earlier})
    kept = []
    for count in (1, 2):
        rows = np.arange(load_dataset(world.data).n_items)
        checkpoints = Checkpoints(tmp_path, f"{count} workers")
        going_on = Continuation(start=dict(earlier.kept), old_rows=rows, checkpoints=checkpoints)
        train(world.changed(workers=count), models=("gat",), continuations={"gat": going_on})
        kept.append(going_on.kept)
        assert checkpoints.newest() is None
    assert kept[0].keys() == kept[1].keys() == earlier.kept.keys()
    for name, value in kept[0].items():
        torch.testing.assert_close(kept[1][name], value, rtol=0, atol=1e-3)
