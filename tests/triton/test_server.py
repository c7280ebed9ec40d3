"""The life of the server process: start, refusal, death, stop. Nothing may be left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from core.errors import ReleaseError, ServerError
from core.settings import ROOT, Settings
from serving.activate import install_release
from serving.client import ConchClient
from serving.command import ADMIN_HEADER, GRPC_HEADER
from serving.orphans import SHARED_MEMORY
from serving.server import TritonServer
from tests.synthetic_release import write_synthetic_release

LOOPBACK, IPV4_IN_IPV6 = "0100007F", "0000000000000000FFFF0000"
"""127.0.0.1 as the kernel prints it, and what stands before it in the table of IPv6."""
MODELS = {"context", "recall_mf", "recall_gat", "rank", "respond", "recommend"}
MODELS |= {"nearest_items", "similar_items", "nearest_users", "name_users", "similar_users"}


def processes_of(folder: Path) -> list[int]:
    """Running processes that have ``folder`` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(folder) in command and state != "Z" and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def wait_until_gone(folder: Path, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes_of(folder)


def shared_memory(server: TritonServer) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{server._shm_prefix}*"))


def test_clean_stop_leaves_no_process_no_memory_and_an_untouched_repository(installed: Settings) -> None:
    repository = installed.paths.var / "repository"
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    with TritonServer(installed, free_ports=True) as server:
        server.client().recommend(["u5"])
        assert processes_of(repository)
        assert shared_memory(server)
        assert server.state_file.stat().st_mode & 0o777 == 0o600
    assert processes_of(repository) == []
    assert shared_memory(server) == []
    assert not server.state_file.exists()
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


def test_an_exception_in_the_block_stops_the_server(installed: Settings) -> None:
    with pytest.raises(KeyboardInterrupt), TritonServer(installed, free_ports=True):
        raise KeyboardInterrupt
    assert processes_of(installed.paths.var) == []


def test_a_killed_server_takes_its_stubs_along(installed: Settings) -> None:
    with TritonServer(installed, free_ports=True) as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="ended by itself"):
            server.wait()
    assert processes_of(installed.paths.var) == []
    assert shared_memory(server) == []


def test_a_killed_parent_takes_the_server_along(installed: Settings) -> None:
    code = (
        "import sys, time; from core.settings import load_settings; from serving.server import TritonServer\n"
        "with TritonServer(load_settings((), ('paths.var=\"%s\"' % sys.argv[1],)), free_ports=True):\n"
        "    print('up', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(installed.paths.var)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
    assert wait_until_gone(installed.paths.var, 30) == []


def test_stubs_of_a_server_that_was_killed_with_its_parent_end_at_the_next_start(installed: Settings) -> None:
    code = (
        "import sys, time; from core.settings import load_settings; from serving.server import TritonServer\n"
        "with TritonServer(load_settings((), ('paths.var=\"%s\"' % sys.argv[1],)), free_ports=True) as server:\n"
        "    print(server.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(installed.paths.var)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as parent:
        assert parent.stdout is not None
        triton = int(parent.stdout.readline())
        parent.kill()
        os.kill(triton, signal.SIGKILL)  # no time to end its stubs
    regions = set(SHARED_MEMORY.glob(f"conch_*_{parent.pid}_*"))
    assert regions
    with TritonServer(installed, free_ports=True):
        assert not regions & set(SHARED_MEMORY.iterdir())
    assert processes_of(installed.paths.var) == []


@pytest.mark.parametrize("key", ["http_port", "grpc_port", "metrics_port"])
def test_a_used_port_is_refused_by_name(installed: Settings, key: str) -> None:
    server = TritonServer(installed, free_ports=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", getattr(server.settings.serving, key)))
        listener.listen()
        with pytest.raises(ServerError, match="cannot be used") as error:
            server.start()
    assert key in str(error.value)
    assert f"--set serving.{key}" in str(error.value.next_step)
    assert processes_of(installed.paths.var) == []


def test_a_graph_that_is_none_is_refused_before_the_start(installed: Settings) -> None:
    graph = installed.paths.var / "repository" / "rank" / "1" / "model.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(ReleaseError, match="not an ONNX file") as error:
        TritonServer(installed, free_ports=True).start()
    assert str(graph) in str(error.value)
    assert processes_of(installed.paths.var) == []


def test_a_state_that_does_not_fit_ends_with_its_reason(installed: Settings) -> None:
    state = installed.paths.var / "repository" / "respond" / "1" / "state.json"
    state.write_text(json.dumps({"release_id": "r1", "n_items": 7}))
    with pytest.raises(ServerError) as error:
        TritonServer(installed, free_ports=True).start()
    assert "vocabulary does not belong to this release" in str(error.value.found)


def test_a_version_folder_without_its_model_is_refused_before_the_start(installed: Settings) -> None:
    (installed.paths.var / "repository" / "context" / "1" / "model.py").unlink()
    with pytest.raises(ReleaseError, match="files of the version"):
        TritonServer(installed, free_ports=True).start()


def test_no_repository_names_the_next_step(tmp_path: Path, installed: Settings) -> None:
    with pytest.raises(ReleaseError, match="no model repository"):
        TritonServer(installed, tmp_path / "nothing", free_ports=True).start()


def test_client_says_how_to_start_a_server_when_there_is_none(installed: Settings) -> None:
    settings = TritonServer(installed, free_ports=True).settings.serving
    with ConchClient(settings) as client, pytest.raises(ServerError, match="no server answers") as error:
        client.recommend(["u5"])
    assert error.value.next_step == "make serve"


def test_a_restart_serves_the_newly_installed_release(installed: Settings, tmp_path: Path) -> None:
    write_synthetic_release(tmp_path / "second", version=2, seed=5)
    with TritonServer(installed, free_ports=True) as server:
        assert server.release_id == "r000001"
        install_release(tmp_path / "second", installed.paths.var / "repository")
        assert server.client().recommend(["u5"])[0].release == "r000001"
    with TritonServer(installed, free_ports=True) as server:
        assert server.release_id == "r000002"
        index = {(entry["name"], entry["version"]): entry["state"] for entry in repository_index(server)}
        assert {name for name, version in index if version == "2"} == MODELS
        assert set(index.values()) == {"READY"}


def repository_index(server: TritonServer, secret: str | None = None) -> list[dict[str, str]]:
    headers = {ADMIN_HEADER: json.loads(server.state_file.read_text())["secret"] if secret is None else secret}
    url = f"http://127.0.0.1:{server.settings.serving.http_port}/v2/repository/index"
    request = urllib.request.Request(url, data=b"{}", headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as response:
        index: list[dict[str, str]] = json.load(response)
    return index


def test_model_control_over_http_needs_the_secret(server: TritonServer) -> None:
    assert {entry["name"] for entry in repository_index(server)} == MODELS
    with pytest.raises(urllib.error.HTTPError) as error:
        repository_index(server, secret="guess")
    assert error.value.code == 403


def test_model_control_over_grpc_needs_the_secret(server: TritonServer) -> None:
    secret = json.loads(server.state_file.read_text())["secret"]
    with triton_grpc.InferenceServerClient(server.address) as control:
        assert len(control.get_model_repository_index(headers={GRPC_HEADER: secret}).models) == len(MODELS)
        with pytest.raises(InferenceServerException, match="restricted"):
            control.unload_model("recommend")
        with pytest.raises(InferenceServerException, match="restricted"):
            control.register_system_shared_memory("x", "/x", 8)


def test_it_listens_on_loopback_only(server: TritonServer) -> None:
    ports = {getattr(server.settings.serving, key) for key in ("http_port", "grpc_port", "metrics_port")}
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, port = local.rpartition(":")
            if state == "0A" and int(port, 16) in ports:
                listening.add((address.removeprefix(IPV4_IN_IPV6), int(port, 16)))
    assert listening == {(LOOPBACK, port) for port in ports}
