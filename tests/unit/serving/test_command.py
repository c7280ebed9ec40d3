from __future__ import annotations

from pathlib import Path

from core.sections import ServingSettings
from serving.command import container_launch, wheel_launch
from serving.wheel import ServerFiles

FILES = ServerFiles(Path("/t/tritonserver"), Path("/t/python"), Path("/t/stub"), Path("/t/libs"))


def test_everything_listens_on_the_configured_host_only() -> None:
    settings = ServingSettings(http_port=1, grpc_port=2, metrics_port=3)
    command = wheel_launch(Path("r"), settings, "s", FILES, Path("b"), Path("/lib"), "shm_").command
    for protocol, port in (("http", 1), ("grpc", 2), ("metrics", 3)):
        assert f"--{protocol}-address=127.0.0.1" in command
        assert f"--{protocol}-port={port}" in command


def test_metrics_alone_listen_elsewhere_when_their_host_is_set() -> None:
    settings = ServingSettings(metrics_host="0.0.0.0")
    command = wheel_launch(Path("r"), settings, "s", FILES, Path("b"), Path("/lib"), "shm_").command
    addresses = {part for part in command if "-address=" in part}
    assert addresses == {"--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=0.0.0.0"}


def test_environment_points_at_this_python() -> None:
    environment = wheel_launch(Path("r"), ServingSettings(), "s", FILES, Path("b"), Path("/lib"), "shm_").environment
    assert environment["LD_LIBRARY_PATH"] == "/lib:/t/libs"
    assert not [key for key in environment if key.startswith("PYTHON")]


def test_container_publishes_on_the_host_address_and_mounts_read_only(tmp_path: Path) -> None:
    settings = ServingSettings(device="cuda")
    command = container_launch(tmp_path, settings, "s").command
    assert "--publish=127.0.0.1:8001:8001" in command
    assert f"--volume={tmp_path}:/models:ro" in command
    assert "--gpus=all" in command
    assert settings.container_image in command
