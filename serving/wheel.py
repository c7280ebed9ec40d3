"""The Triton server inside a wheel of PyPI: installed beside the environment, never into it.

``nvidia-pytriton`` 0.7.0 carries tritonserver 2.51.0 with the python backend. Its pins would break ours, so it goes,
without dependencies, to ``<environment>/share/conch-triton``.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ServerError

REQUIREMENT = "nvidia-pytriton==0.7.0"
GLIBC = (2, 35)
"""The wheel is manylinux_2_35."""
SETUP = "make setup"
ONNXRUNTIME_BACKEND = Path(__file__).parent / "backends" / "onnxruntime" / "model.py"


@dataclass(frozen=True)
class ServerFiles:
    """Where the parts of an installed server are.

    Attributes:
        binary: tritonserver.
        python_backend: Folder of the python backend.
        stub: The process that runs python steps, built for this Python.
        libraries: Folder of the shared libraries that the wheel brings.
    """

    binary: Path
    python_backend: Path
    stub: Path
    libraries: Path

    def __str__(self) -> str:
        return str(self.binary)


def default_target() -> Path:
    """Where the server of this environment lies."""
    return Path(sys.prefix) / "share" / "conch-triton"


def install_server(target: Path | None = None) -> ServerFiles:
    """Fetches the server with pip; does nothing where it is already there.

    Raises:
        ServerError: This platform cannot run it, or pip failed.
    """
    check_platform()
    target = target or default_target()
    if not _is_installed(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".conch-triton-", dir=target.parent))
        try:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                       "--no-deps", "--only-binary", ":all:", "--target", str(staging), REQUIREMENT]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise ServerError(
                    "pip could not fetch the Triton server",
                    where=REQUIREMENT,
                    found="\n".join(done.stderr.strip().splitlines()[-5:]),
                    next_step=f"check the connection to your package index, then `{SETUP}` again",
                )
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return find_server(target)


def find_server(target: Path | None = None) -> ServerFiles:
    """The parts of the installed server.

    Raises:
        ServerError: Not installed, or it has no stub for this Python.
    """
    target = target or default_target()
    if not _is_installed(target):
        raise ServerError("the Triton server is not installed", where=str(target), next_step=SETUP)
    home = target / "pytriton" / "tritonserver"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        found = sorted(path.name for path in (home / "python_backend_stubs").iterdir())
        raise ServerError(
            f"Triton has no stub for Python {python}",
            where=str(stub.parent.parent),
            expected=", ".join(found),
            found=python,
            next_step="make the environment with one of these Pythons",
        )
    return ServerFiles(
        home / "bin" / "tritonserver", home / "backends" / "python", stub, target / "nvidia_pytriton.libs"
    )


def build_backends(folder: Path, files: ServerFiles) -> None:
    """Lays out the backend folder that Triton searches: the python backend with our stub, and our onnxruntime."""
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "python"
    python.mkdir(parents=True)
    names = ("libtriton_python.so", "triton_python_backend_utils.py")
    for source in (files.stub, *(files.python_backend / name for name in names)):
        shutil.copy(source, python)  # Triton refuses links that lead out of the backend folder
    (folder / "onnxruntime").mkdir()
    shutil.copy(ONNXRUNTIME_BACKEND, folder / "onnxruntime")


def check_platform() -> None:
    """Raises ServerError where the wheel's binary cannot run."""
    system, machine, (libc, version) = platform.system(), platform.machine(), platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if system != "Linux" or machine != "x86_64" or libc != "glibc" or numbers < GLIBC:
        raise ServerError(
            "the Triton server from PyPI does not run on this platform",
            expected=f"Linux on x86_64 with glibc {GLIBC[0]}.{GLIBC[1]} or newer",
            found=f"{system} on {machine} with {libc or 'another libc'} {version}".strip(),
            next_step="install docker: `conch serve` then runs NVIDIA's container",
        )


def check_environment() -> Path:
    """Checks what the python steps need of this environment.

    Returns:
        The folder of libpython, for the loader.

    Raises:
        ServerError: numpy 2, or a Python without a shared library.
    """
    check_numpy(importlib.metadata.version("numpy"))
    variable = lambda name: str(sysconfig.get_config_var(name) or "")  # noqa: E731
    library = Path(variable("LIBDIR"))
    # Debian keeps it per architecture; relocated builds (uv, conda) report where they were built.
    folders = (library, library / variable("MULTIARCH"), Path(sys.base_prefix) / "lib")
    return find_libpython(folders, variable("INSTSONAME"))


def check_numpy(version: str) -> None:
    """Raises ServerError for numpy 2: with it the stub of Triton 2.51 returns every tensor with 0 bytes."""
    if int(version.split(".")[0]) >= 2:
        raise ServerError(
            "Triton 2.51 returns empty tensors with this numpy",
            expected="numpy < 2",
            found=f"numpy {version}",
            next_step="pip install 'numpy<2'",
        )


def find_libpython(folders: Iterable[Path], soname: str) -> Path:
    """The first folder that holds the shared library of this Python.

    Raises:
        ServerError: There is none.
    """
    folders = tuple(folders)
    if ".so" in soname:
        for folder in folders:
            if (folder / soname).exists():
                return folder
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise ServerError(
        "this Python has no shared library, which Triton's stub links to",
        where=", ".join(map(str, folders)),
        expected=f"libpython{python}.so.1.0",
        found=soname or "none",
        next_step=f"apt install libpython{python} (Debian, Ubuntu), or build Python with --enable-shared",
    )


def _is_installed(target: Path) -> bool:
    return (target / "pytriton" / "tritonserver" / "bin" / "tritonserver").is_file()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"Triton server: {install_server()}\n")
    except ServerError as error:
        sys.exit(f"serving.wheel: {error}")
