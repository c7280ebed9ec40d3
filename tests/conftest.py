"""Shared fixtures, and markers given by folder: tests/triton → triton, tests/gpu → gpu."""

from __future__ import annotations

import os
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
