"""Small trained recall models of every kind."""

from __future__ import annotations

import pytest

from compression.task import Task
from core.dataset import Dataset, load_dataset
from core.progress import SILENT
from core.settings import ROOT, Settings, load_settings
from training.data.stage import build_dataset
from training.models.fitters import fitter

FIT = ("train",)
KINDS = ("mf", "gat", "spectral", "ease", "mix")


@pytest.fixture(scope="session")
def small_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    var = tmp_path_factory.mktemp("compression-var")
    options = (f'paths.var="{var}"', "gat.epochs=2", "spectral.dimension=16", 'mix.members=["mf","spectral"]')
    return load_settings((ROOT / "config" / "smoke.toml",), options)


@pytest.fixture(scope="session")
def small_dataset(small_settings: Settings) -> Dataset:
    return load_dataset(build_dataset(small_settings))


@pytest.fixture(scope="session")
def tasks(small_settings: Settings, small_dataset: Dataset) -> dict[str, Task]:
    """A compression task per kind of recall model."""
    events = small_dataset.events.of_splits(FIT)
    models = {
        kind: fitter(kind)(small_dataset, events, small_settings, seed=0, progress=SILENT).eval() for kind in KINDS
    }
    return {
        kind: Task(f"recall_{kind}", model, small_dataset, FIT, small_settings, {}) for kind, model in models.items()
    }
