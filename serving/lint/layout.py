"""What a model repository consists of: models, their files, their configs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from core.ensembles import EXTRAS, MODEL_SEPARATOR, base_model, leaf_steps, served_ensembles
from core.errors import ReleaseError
from core.tensors import ENSEMBLE, RECALL_PREFIX
from serving.release import GRAPH_FILE, PLAN_FACTS, PLAN_FILE, RELEASE_FILE, STEP_FILE
from serving.state import CODES_FILE, HISTORY_FILE, RERANK_FILE, STATE_FILE, USERS_FILE, VOCABULARY_FILE
from serving.sums import SUMS_FILE

CONFIG_FILE = "config.pbtxt"
STEP_FILES: dict[str, frozenset[str]] = {
    "context": frozenset({STEP_FILE, VOCABULARY_FILE, HISTORY_FILE, STATE_FILE}),
    "respond": frozenset({STEP_FILE, VOCABULARY_FILE, RERANK_FILE, STATE_FILE}),
    "name_users": frozenset({STEP_FILE, USERS_FILE, STATE_FILE}),
    "rate_items": frozenset({STEP_FILE, VOCABULARY_FILE, STATE_FILE}),
}
"""What the version folder of each python step holds: this, and Python's compiled files."""
MAY_LACK = {CODES_FILE, SUMS_FILE}
"""Releases from before requests could bring attributes have no codes; checksums come when a release is published."""
COMPILED = "__pycache__"
TENSORRT = "tensorrt"
"""Backend of the leaves that are served as plans."""


@dataclass(frozen=True)
class Signature:
    """Names, types and dims of a config's tensors."""

    inputs: dict[str, tuple[int, tuple[int, ...]]]
    outputs: dict[str, tuple[int, tuple[int, ...]]]


@dataclass(frozen=True)
class Models:
    """The models of a repository.

    Attributes:
        leaves: The steps, those of ``recommend`` first and in order.
        ensembles: The entry points, ``recommend`` last.
        files: What the version folders of each hold, compiled files aside.
    """

    leaves: tuple[str, ...]
    ensembles: tuple[str, ...]
    files: dict[str, frozenset[str]]

    @property
    def names(self) -> tuple[str, ...]:
        """Leaves, then ensembles."""
        return (*self.leaves, *self.ensembles)


def models_of(repository: Path) -> Models:
    """What a repository should hold, from the steps of ``recommend`` and from the other ensembles that are there.

    Raises:
        ReleaseError: An ensemble's config cannot be read, or has other steps than it should.
    """
    path = repository / ENSEMBLE.name
    named = _steps_of(path)
    sources = [name.removeprefix(RECALL_PREFIX) for name in named if name.startswith(RECALL_PREFIX)]
    if not sources:
        raise ReleaseError("ensemble has no recall step", where=str(path / CONFIG_FILE), found=", ".join(named))
    ensembles = served_ensembles(sources, ensembles_of(repository))
    for ensemble in ensembles:
        folder = repository / ensemble.spec.name
        _expect(folder / CONFIG_FILE, "steps", [step.name for step in ensemble.steps], _steps_of(folder))
    leaves = leaf_steps(ensembles)
    files = {step.name: STEP_FILES.get(step.name) or _graph_files(repository / step.name) for step in leaves}
    names = tuple(ensemble.spec.name for ensemble in ensembles)
    return Models(tuple(files), names, files | dict.fromkeys(names, frozenset({RELEASE_FILE})))


def _graph_files(leaf: Path) -> frozenset[str]:
    """A graph, or a plan with what it was built on, as the config says."""
    try:
        plan = read_config(leaf).backend == TENSORRT
    except ReleaseError:  # told by the rules about configs
        plan = False
    return frozenset({PLAN_FILE, PLAN_FACTS}) if plan else frozenset({GRAPH_FILE})


def ensembles_of(repository: Path) -> tuple[str, ...]:
    """Names of the models that a server loads: the extra ensembles that are there, then ``recommend``."""
    return (*(name for name in EXTRAS if (repository / name).is_dir()), ENSEMBLE.name)


def is_beside(path: Path) -> bool:
    """True for models of single releases in a live repository: they were checked when they were published."""
    return MODEL_SEPARATOR in path.name and (path.parent / base_model(path.name)).is_dir()


def _steps_of(ensemble: Path) -> list[str]:
    return [step.model_name for step in read_config(ensemble).ensemble_scheduling.step]


def read_config(model: Path) -> pb.ModelConfig:
    """Parses ``model/config.pbtxt``. Raises ReleaseError where it is missing or no such text."""
    path = model / CONFIG_FILE
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
    except FileNotFoundError:
        raise ReleaseError("model has no config.pbtxt", where=str(path)) from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ReleaseError("config.pbtxt cannot be read", where=str(path), found=str(error)) from None


def signature(config: pb.ModelConfig) -> Signature:
    """The tensors of a config."""
    return Signature(
        {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in config.input},
        {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in config.output},
    )


def pinned_version(config: pb.ModelConfig, where: Path) -> int:
    """The version that every step of an ensemble is pinned to.

    Raises:
        ReleaseError: A step without a pin, or pins that differ: such an ensemble mixes releases in one answer.
    """
    pins = {step.model_name: step.model_version for step in config.ensemble_scheduling.step}
    if any(version < 1 for version in pins.values()) or len(set(pins.values())) != 1:
        raise ReleaseError(
            "ensemble steps are not pinned to one version",
            where=str(where),
            expected="the same model_version >= 1 in every step",
            found=", ".join(f"{name}: {version}" for name, version in pins.items()),
        )
    return int(next(iter(pins.values())))


def _expect(where: Path, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise ReleaseError(f"wrong {what}", where=str(where), expected=str(expected), found=str(found))
