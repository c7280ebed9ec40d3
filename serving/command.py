"""The command line of Triton, from typed settings: an installed server, that of the wheel, or NVIDIA's container."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.sections import ServingSettings
from core.settings import ROOT
from serving.lint import ensembles_of
from serving.wheel import ServerFiles

ADMIN_HEADER = "conch-admin"
"""Header that carries the secret for model control."""
GRPC_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"
"""The same over gRPC, where Triton asks for a prefix."""
RESTRICTED = "model-repository,shared-memory,trace,logging"
"""APIs that need the secret: model control runs uploaded code by design, shared memory reads foreign memory."""


@dataclass(frozen=True)
class Launch:
    """How to start one server process."""

    command: tuple[str, ...]
    environment: dict[str, str]


def server_arguments(
    repository: Path, served: str, settings: ServingSettings, secret: str, models: Sequence[str] = ()
) -> list[str]:
    """Arguments that the wheel's server and the container share; the latter sees the repository as ``served``."""
    return [
        f"--model-repository={served}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in models or ensembles_of(repository)),
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        f"--http-address={settings.host}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={settings.metrics_host or settings.host}",
        f"--metrics-port={settings.metrics_port}",
        f"--http-restricted-api={RESTRICTED}:{ADMIN_HEADER}={secret}",
        f"--grpc-restricted-protocol={RESTRICTED}:{ADMIN_HEADER}={secret}",
        "--exit-timeout-secs=5",
    ]


def wheel_launch(
    repository: Path,
    settings: ServingSettings,
    secret: str,
    files: ServerFiles,
    backends: Path,
    libpython: Path,
    shm_prefix: str,
    models: Sequence[str] = (),
) -> Launch:
    """Starts tritonserver of the wheel.

    Args:
        repository: The live model repository.
        settings: Addresses and ports.
        secret: For model control.
        files: The installed server.
        backends: Folder laid out by ``serving.wheel.build_backends``.
        libpython: Folder of Python's shared library.
        shm_prefix: Names of the server's shared memory start with it, so that leftovers can be told and removed.
        models: Ensembles to load; the aliases when empty.
    """
    command = [
        str(files.binary),
        *server_arguments(repository, str(repository.resolve()), settings, secret, models),
        f"--backend-directory={backends.resolve()}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        "--allow-gpu-metrics=" + ("true" if settings.device == "cuda" else "false"),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {
        # The stub finds its site-packages through the python on PATH; it ignores PYTHONPATH.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": f"{libpython}{os.pathsep}{files.libraries}",
    }
    return Launch(tuple(command), environment)


def installed_launch(
    repository: Path,
    settings: ServingSettings,
    secret: str,
    binary: str,
    shm_prefix: str,
    models: Sequence[str] = (),
) -> Launch:
    """Starts a tritonserver that is installed here with its backends, as in NVIDIA's image.

    Args:
        repository: The live model repository.
        settings: Addresses and ports.
        secret: For model control.
        binary: tritonserver.
        shm_prefix: See ``wheel_launch``.
        models: Ensembles to load; the aliases when empty.
    """
    command = (
        binary,
        *server_arguments(repository, str(repository.resolve()), settings, secret, models),
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
    )
    return Launch(command, {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")})


def container_launch(repository: Path, settings: ServingSettings, secret: str, models: Sequence[str] = ()) -> Launch:
    """Starts NVIDIA's container, whose onnxruntime backend is the C++ one. Docker must be there.

    The image has Python and numpy; the python steps need pyarrow and pydantic on top, and this project on their path.
    """
    served = "/models"
    ports = (settings.http_port, settings.grpc_port, settings.metrics_port)
    inside = settings.model_copy(update={"host": "0.0.0.0"})  # published on the host's address only
    start = ["tritonserver", *server_arguments(repository, served, inside, secret, models)]
    command = [
        shutil.which("docker") or "docker", "run", "--rm",
        "--name", f"conch-triton-{settings.grpc_port}", "--shm-size=1g",
        *(["--gpus=all"] if settings.device == "cuda" else []),
        *(f"--publish={settings.host}:{port}:{port}" for port in ports),
        f"--volume={repository.resolve()}:{served}:ro",
        f"--volume={ROOT}:/opt/conch:ro",
        "--env=PYTHONPATH=/opt/conch",
        settings.container_image,
        "sh", "-c", 'pip install --quiet pyarrow pydantic && exec "$@"', "sh", *start,
    ]  # fmt: skip
    return Launch(tuple(command), dict(os.environ))


def find_installed() -> str | None:
    """The tritonserver on the path; None where there is none, as on most machines."""
    return shutil.which("tritonserver")


def has_docker() -> bool:
    """True where a docker command is on the path."""
    return shutil.which("docker") is not None
