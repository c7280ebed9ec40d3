"""Shared fixtures, and markers given by folder: tests/triton → triton, tests/gpu → gpu."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from core.settings import ROOT, Settings, load_settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in pipeline/cli.py; before anything imports torch
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

hypothesis_settings.register_profile("conch", deadline=None)  # a busy machine is no failure
hypothesis_settings.load_profile("conch")

REQUIRED = set(filter(None, os.environ.get("CONCH_REQUIRE", "").split(",")))
"""What may not be skipped on this machine, for example CONCH_REQUIRE=triton."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in ("triton", "gpu"):
            if f"tests/{name}/" in item.path.as_posix():
                item.add_marker(name)


@pytest.fixture
def require() -> object:
    """Skips a test whose need is missing, or fails it where CONCH_REQUIRE names that need."""

    def check(need: str, there: bool, why: str) -> None:
        if not there:
            (pytest.fail if need in REQUIRED else pytest.skip)(f"{need} is missing: {why}")

    return check


@pytest.fixture
def rtx(require: Callable[[str, bool, str], None]) -> None:
    """A test that compiles graphs with TensorRT for RTX."""
    from export.tensorrt.gate import INSTALL, is_installed

    require("rtx", is_installed(), INSTALL)


@pytest.fixture(scope="session")
def smoke_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """config/smoke.toml with everything written to a folder of this test session."""
    var = tmp_path_factory.mktemp("smoke-var")
    return load_settings((ROOT / "config" / "smoke.toml",), (f'paths.var="{var}"',))


@pytest.fixture(scope="session")
def smoke_var(smoke_settings: Settings) -> Path:
    """A folder in which the whole chain has run once: dataset, models, graphs, release, live repository."""
    from core.progress import SILENT
    from pipeline.stages import run_stages

    run_stages(smoke_settings, SILENT)
    return smoke_settings.paths.var


@pytest.fixture(scope="session")
def compressed_settings(
    smoke_settings: Settings, smoke_var: Path, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """As ``smoke_settings`` after its chain has run, with compressed models in the live release.

    A chain this small meets no goal, so the candidates are named here; all else is what `conch compress` does.
    """
    import shutil

    from compression.refit import Chain, as_recorded
    from core.artifacts import latest_artifact, parent_artifact
    from core.dataset import load_dataset
    from core.progress import SILENT
    from core.settings import change_settings
    from pipeline.compressing.facts import facts_of_outcome
    from pipeline.compressing.served import measure_served
    from pipeline.compressing.stage import make_chosen, search, store_chosen
    from pipeline.stages import run_stages
    from training.models.ranker import load_ranker
    from training.models.recall import load_model

    var = tmp_path_factory.mktemp("compressed-var")
    shutil.copytree(smoke_var / "artifacts", var / "artifacts")
    settings = change_settings(smoke_settings, {"paths.var": var, "compress.enabled": True})
    ranker = latest_artifact(var, "ranker")
    recorded, last = as_recorded(settings, ranker), load_ranker(ranker)
    data = parent_artifact(ranker, var, "dataset")
    sources = {source: parent_artifact(ranker, var, source) for source in last.shape.sources}
    models = {source: load_model(artifact) for source, artifact in sources.items()}
    shipped = Chain(models, last, tuple(ranker.manifest.settings["train"]["fit"]))
    dataset = load_dataset(data)
    outcome, users = search(shipped, sources, dataset, recorded, SILENT)
    names = {"recall_mf": "rank50-int8-columns", "recall_gat": "tiers6543h5432", "rank": "int8"}
    chosen = make_chosen(names, shipped, dataset, recorded, SILENT)
    served = measure_served(shipped.modules(), chosen, dataset, recorded, SILENT)
    report = facts_of_outcome(outcome, settings.compress, users, 0.0, served)
    store_chosen(settings, recorded, chosen, (data, *sources.values(), ranker), report)
    run_stages(settings, SILENT, ("export", "release"))
    return settings


@pytest.fixture(scope="session")
def linear_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """As ``smoke_settings``, with the three linear models as recall sources."""
    var = tmp_path_factory.mktemp("linear-var")
    return load_settings(
        (ROOT / "config" / "smoke.toml",),
        (f'paths.var="{var}"', 'recall.sources=["mf", "ease", "spectral"]', "ranker.epochs=2"),
    )


@pytest.fixture(scope="session")
def linear_var(linear_settings: Settings) -> Path:
    """As ``smoke_var``, of ``linear_settings``."""
    from core.progress import SILENT
    from pipeline.stages import run_stages

    run_stages(linear_settings, SILENT)
    return linear_settings.paths.var
