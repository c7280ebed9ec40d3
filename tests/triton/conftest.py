"""A real Triton on free ports, serving a synthetic release. Missing: skipped, or failed under CONCH_REQUIRE=triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ServerError
from core.sections import PathSettings, ServingSettings
from core.settings import Settings
from serving.activate import install_release
from serving.client import ConchClient
from serving.local import LocalPipeline
from serving.server import TritonServer
from serving.wheel import check_environment, check_platform, find_server
from tests.conftest import REQUIRED
from tests.synthetic_release import write_synthetic_release


@pytest.fixture(scope="session", autouse=True)
def installed_triton() -> None:
    """The server of the wheel, on a platform that runs it."""
    try:
        check_platform()
        find_server()
        check_environment()
    except ServerError as error:
        (pytest.fail if "triton" in REQUIRED else pytest.skip)(f"triton is missing: {error}")


def settings_in(folder: Path) -> Settings:
    """Default settings that write below ``folder`` and give up early."""
    return Settings(
        paths=PathSettings(var=folder / "var"),
        serving=ServingSettings(start_timeout_seconds=60, deadline_seconds=20),
    )


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_synthetic_release(folder)
    return folder


@pytest.fixture
def installed(tmp_path: Path, release: Path) -> Settings:
    """Settings whose live repository holds the release; no server yet."""
    settings = settings_in(tmp_path)
    install_release(release, settings.paths.var / "repository")
    return settings


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, release: Path) -> Iterator[TritonServer]:
    """One server for all tests that do not end it."""
    settings = settings_in(tmp_path_factory.mktemp("server"))
    install_release(release, settings.paths.var / "repository")
    with TritonServer(settings, free_ports=True) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: TritonServer) -> Iterator[ConchClient]:
    with server.client() as connected:
        yield connected


@pytest.fixture(scope="session")
def local(release: Path) -> Iterator[LocalPipeline]:
    with LocalPipeline(release, threads=1) as pipeline:
        yield pipeline
