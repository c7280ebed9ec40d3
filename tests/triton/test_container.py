"""What runs in the containers of a replica, as processes: Triton as its own process, the probe, the follower."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from core.errors import ArtifactError
from core.processes import end, ended, free_ports
from core.sections import PathSettings
from core.settings import ROOT, Settings
from pipeline.settings_file import render
from serving.client import ConchClient
from serving.control import running_replicas
from serving.follow import Follower, keep_following
from serving.orphans import region_prefix
from serving.pointer import pointer_file, read_pointer
from serving.publish import Publisher
from serving.release import live_repository
from serving.server import TritonServer
from serving.wheel import build_backends, check_environment, find_server
from tests.sealed_release import seal_release
from tests.triton.conftest import settings_in
from tests.triton.test_server import processes_of


def replica_of(settings: Settings, folder: Path) -> Settings:
    """Settings of a replica with files and ports of its own."""
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    return settings.model_copy(
        update={"paths": PathSettings(var=folder), "serving": settings.serving.model_copy(update=ports)}
    )


def written(settings: Settings, folder: Path) -> Path:
    file = folder / "conch.toml"
    file.write_text(render(settings), encoding="utf-8")
    return file


def path_with_triton(folder: Path) -> str:
    """A path with a tritonserver that has its backends, as in NVIDIA's image: here it is the wheel's."""
    files, programs, backends = find_server(), folder / "bin", folder / "backends"
    build_backends(backends, files)
    programs.mkdir()
    script = programs / "tritonserver"
    script.write_text(
        f'#!/bin/sh\nexport LD_LIBRARY_PATH="{check_environment()}:{files.libraries}"\n'
        f'exec {files.binary} "$@" --backend-directory={backends}\n'
    )
    script.chmod(0o755)
    return f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"


@contextlib.contextmanager
def container(config: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m serving.container`, ended with this context."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PATH"] = path_with_triton(folder)
    command = [
        sys.executable, "-m", "serving.container", "--config", str(config), "--",
        f"--backend-config=python,shm-region-prefix-name={region_prefix('c')}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            end(process, 30)


def probe(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.healthcheck", "--config", str(config), "--seconds", "10"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def files_of(folder: Path) -> dict[str, int]:
    """Every path and when it was changed."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end_at
        time.sleep(0.2)


def test_a_replica_starts_follows_a_canary_a_flip_and_a_rollback(tmp_path: Path) -> None:
    shared = settings_in(tmp_path / "shared").paths.var
    settings = replica_of(settings_in(tmp_path), tmp_path / "var")
    var = settings.paths.var
    config = written(settings, tmp_path)
    first, second = seal_release(shared, 1).path, seal_release(shared, 2).path
    publisher, follower = Publisher(shared, "test"), Follower(var, shared)
    assert follower.follow() is None  # nothing is live yet
    publisher.activate(first, reason="first")
    keep_following(follower, str, once=True)

    with container(config, tmp_path) as process, ConchClient(settings.serving, deadline_seconds=20) as client:
        until(lambda: process.poll() is not None or probe(config).returncode == 0)
        assert client.recommend(["u5"])[0].release == "r000001", (tmp_path / "log").read_text()
        (running,) = running_replicas(var)
        assert running.address == f"127.0.0.1:{settings.serving.grpc_port}"

        publisher.start_canary(second, weight=0.01, reason="canary")
        assert client.recommend(["u5"])[0].release == "r000001"
        outcome = follower.follow()
        assert outcome is not None
        assert outcome.complaints == ()
        pointer, over_there = read_pointer(pointer_file(var)), read_pointer(pointer_file(shared))
        assert pointer is not None
        assert over_there is not None
        assert pointer.model_dump(exclude={"epoch"}) == over_there.model_dump(exclude={"epoch"})

        publisher.move_canary(1, reason="all")
        follower.follow()
        assert client.recommend(["u5"])[0].release == "r000002"
        publisher.rollback(reason="bad")
        follower.follow()
        assert client.recommend(["u5"])[0].release == "r000001"
        assert follower.follow() is None  # it agrees

        process.terminate()  # reaches Triton itself
        assert process.wait(30) == 0
    assert probe(config).returncode == 1
    assert running_replicas(var)[0].address is None


def test_a_gateway_beside_it_answers_and_leaves_it_running(tmp_path: Path, installed: Settings) -> None:
    settings = replica_of(installed, installed.paths.var)
    (port,) = free_ports(1)
    change = {"port": port, "starts_triton": False, "operator": False, "drain_seconds": 0.0, "deadline_ms": 5_000.0}
    gateway = settings.gateway.model_copy(update=change)
    config = written(settings.model_copy(update={"gateway": gateway}), tmp_path)
    with container(config, tmp_path) as process, (tmp_path / "gateway.log").open("wb") as log:
        until(lambda: process.poll() is not None or probe(config).returncode == 0)
        command = [str(Path(sys.executable).with_name("conch")), "gateway", "--config", str(config)]
        with ended(subprocess.Popen(command, stdout=log, stderr=log), 30) as beside:
            url = f"http://127.0.0.1:{port}"
            until(lambda: beside.poll() is not None or is_ready(url))
            answer = httpx.post(f"{url}/v1/recommendations", json={"user_id": "u5", "k": 3}, timeout=20).json()
            assert (answer["degraded"], len(answer["items"])) == (False, 3), (tmp_path / "gateway.log").read_text()
        assert beside.returncode == 0
        assert probe(config).returncode == 0


def test_a_gateway_heals_a_step_of_a_triton_that_was_started_again(tmp_path: Path, installed: Settings) -> None:
    settings = replica_of(installed, installed.paths.var)
    (port,) = free_ports(1)
    change = {"port": port, "starts_triton": False, "operator": False, "drain_seconds": 0.0}
    config = written(settings.model_copy(update={"gateway": settings.gateway.model_copy(update=change)}), tmp_path)
    url, repository = f"http://127.0.0.1:{port}", live_repository(settings.paths.var)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with contextlib.ExitStack() as stack, (tmp_path / "gateway.log").open("wb") as log:
        with container(config, folders[0]):
            until(lambda: probe(config).returncode == 0)
            command = [str(Path(sys.executable).with_name("conch")), "gateway", "--config", str(config)]
            stack.enter_context(ended(subprocess.Popen(command, stdout=log, stderr=log), 30))
            until(lambda: is_ready(url))
        until(lambda: not is_ready(url))
        process = stack.enter_context(container(config, folders[1]))  # with another secret
        until(lambda: is_ready(url))
        stubs = [pid for pid in processes_of(repository / "respond") if pid != process.pid]
        assert stubs
        for pid in stubs:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not is_ready(url), 20)
        until(lambda: is_ready(url), 40)
        assert 'conch_heals_total{outcome="loaded"}' in httpx.get(f"{url}/metrics").text


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_an_installed_server_is_started_before_that_of_the_wheel(
    tmp_path: Path, installed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path_with_triton(tmp_path))
    with TritonServer(installed, free_ports=True) as server:
        (command,) = (
            line for line in Path(f"/proc/{server.pid}/cmdline").read_text().split("\0") if "directory" in line
        )
        assert command == f"--backend-directory={tmp_path / 'backends'}"


def test_a_replica_keeps_what_it_serves_when_a_release_is_damaged_on_the_way(tmp_path: Path) -> None:
    shared, var = tmp_path / "shared", tmp_path / "var"
    publisher, follower = Publisher(shared, "test"), Follower(var, shared)
    publisher.activate(seal_release(shared, 1).path, reason="first")
    before = files_of(shared)
    follower.follow()
    assert files_of(shared) == before  # it may be mounted read-only
    second = seal_release(shared, 2).path
    publisher.activate(second, reason="second")
    graph = second / "repository" / "rank" / "2" / "model.onnx"
    graph.chmod(0o644)
    graph.write_bytes(graph.read_bytes()[:-8])
    with pytest.raises(ArtifactError):
        follower.follow()
    pointer = read_pointer(pointer_file(var))
    assert pointer is not None
    assert pointer.stable == "r000001"
