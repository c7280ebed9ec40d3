"""The images: what they install is enough for what they run, and torch is no part of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core.sections import ServingSettings
from core.settings import ROOT

IMAGE = ROOT / "deploy" / "image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text(encoding="utf-8")
ROOMS = ("core", "serving", "feedback", "pipeline")
RUN_BY_TRITON = {"serving.step"}
"""Imports a module that Triton brings."""
COMMANDS = ("pipeline.cli", "pipeline.gateway", "pipeline.events", "pipeline.publish", "pipeline.online")
"""What `conch gateway`, `events`, `status`, `rollback`, `canary` import."""
LONELY = """
import importlib, runpy, sys, types
allowed = set(sys.argv[1].split(","))
class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed and not name.startswith("_sysconfigdata"):  # no fixed name
            raise ModuleNotFoundError(f"not in the image: {name}", name=name)
sys.meta_path.insert(0, Fence())
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
for name in sys.argv[2].split(","):
    importlib.import_module(name)
for file in sys.argv[3].split(","):
    runpy.run_path(file)
"""


def declared() -> list[Requirement]:
    lines = (IMAGE / "serving.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def distributions() -> set[str]:
    """What pip installs for the declared packages: their names, theirs in turn, as in this environment."""
    found: set[str] = set()
    waiting = [(one.name, frozenset(one.extras)) for one in declared()]
    while waiting:
        name, extras = waiting.pop()
        found.add(normal(name))
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            wanted = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
            if wanted and (normal(needed.name) not in found or needed.extras):
                waiting.append((needed.name, frozenset(needed.extras)))
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def importable() -> set[str]:
    """Top-level names that the image has."""
    files = [file for name in distributions() for file in metadata.files(name) or ()]
    return {file.parts[0].partition(".")[0] for file in files} | sys.stdlib_module_names


def modules() -> list[str]:
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for room in ("core", "serving", "feedback")
        for path in (ROOT / room).rglob("*.py")
        if "backends" not in path.parts and path.name != "leash.py"  # a script, and one that Triton loads
    }
    return sorted(found | RUN_BY_TRITON) + list(COMMANDS)


def alone(allowed: set[str], names: list[str]) -> subprocess.CompletedProcess[str]:
    steps = [str(path) for path in sorted((ROOT / "model_repository").glob("*/1/model.py"))]
    arguments = [",".join(sorted(allowed)), ",".join(names), ",".join(steps)]
    return subprocess.run(
        [sys.executable, "-c", LONELY, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_serving_feedback_and_the_steps_import_with_the_packages_of_the_image_alone() -> None:
    done = alone(importable() | set(ROOMS), modules())
    assert done.returncode == 0, done.stderr[-2_000:]


def test_a_package_that_is_missing_would_be_found() -> None:
    done = alone((importable() | set(ROOMS)) - {"tritonclient"}, ["serving.client"])
    assert "not in the image: tritonclient" in done.stderr


@pytest.mark.parametrize("heavy", ["torch", "torch-geometric", "lightgbm", "numba", "optuna", "scipy", "matplotlib"])
def test_training_packages_are_not_in_the_image(heavy: str) -> None:
    assert heavy not in distributions()


def test_what_the_image_names_is_a_dependency_of_the_project_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {
        normal(Requirement(text).name)
        for text in (*project["dependencies"], *project["optional-dependencies"]["stream"])
    }
    pinned = {normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {normal(one.name) for one in declared()} <= known
    assert distributions() <= pinned | {"setuptools"}


def test_the_image_is_made_from_the_triton_that_the_settings_name() -> None:
    assert f"ARG TRITON_IMAGE={ServingSettings().container_image}\n" in DOCKERFILE


@pytest.mark.parametrize("target", ["triton", "gateway", "trainer"])
def test_every_image_ends_as_a_user_without_rights(target: str) -> None:
    stage = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)
    (text,) = (part for part in stage if part.startswith(f"{target}\n"))
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "10001:10001"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [
        line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY") and "--from" not in line
    ]
    sources = {source for line in copied for source in line} - {"."}
    assert len(sources) > 9
    assert sources <= kept
    assert all((ROOT / Path(name)).exists() for name in kept)
