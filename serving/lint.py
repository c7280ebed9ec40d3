"""Checks a model repository before Triton sees it.

Triton 2.51 aborts on a version name above int64, hangs on a version folder without its model file, reads ``12.tmp``
as version 12, and takes an ensemble down whose pinned version is not there. All of these are found here instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from core.errors import ReleaseError
from core.tensors import ENSEMBLE, EXTRAS, RANK, RATE, RATE_ITEMS, RATING, RECALL_PREFIX, steps
from serving.release import GRAPH_FILE, RELEASE_FILE, STEP_FILE, VERSION_NAME
from serving.state import HISTORY_FILE, STATE_FILE, VOCABULARY_FILE

CONFIG_FILE = "config.pbtxt"
VERSION_FILES: dict[str, frozenset[str]] = {
    "context": frozenset({STEP_FILE, VOCABULARY_FILE, HISTORY_FILE, STATE_FILE}),
    "respond": frozenset({STEP_FILE, VOCABULARY_FILE, STATE_FILE}),
    RANK: frozenset({GRAPH_FILE}),
    ENSEMBLE.name: frozenset({RELEASE_FILE}),
    RATE_ITEMS.name: frozenset({STEP_FILE, VOCABULARY_FILE, STATE_FILE}),
    RATING.name: frozenset({GRAPH_FILE}),
    RATE.name: frozenset({RELEASE_FILE}),
}
"""What each model's version folder holds, a recall step's being as rank's: this, and Python's compiled files."""
COMPILED = "__pycache__"


@dataclass(frozen=True)
class Signature:
    """Names, types and dims of a config's tensors."""

    inputs: dict[str, tuple[int, tuple[int, ...]]]
    outputs: dict[str, tuple[int, tuple[int, ...]]]


def lint_repository(repository: Path) -> None:
    """Checks everything that can be checked without loading.

    Raises:
        ReleaseError: The first fault: missing or stray files, bad names, symlinks, unpinned or missing versions,
            an ensemble that does not fit its steps.
    """
    if not repository.is_dir():
        raise ReleaseError(
            "no model repository", where=str(repository), next_step="run `conch release`, then `conch activate`"
        )
    models = sorted(models_of(repository))
    _expect(repository, "models in the repository", models, sorted(path.name for path in repository.iterdir()))
    configs = {name: read_config(repository / name) for name in models}
    for name, config in configs.items():
        _lint_model(repository / name, config)
    for ensemble in ensembles_of(repository):
        _lint_ensemble(repository / ensemble / CONFIG_FILE, configs)
    pins = {pinned_version(configs[name], repository / name) for name in ensembles_of(repository)}
    _expect(repository, "number of versions that the ensembles are pinned to", 1, len(pins))


def models_of(repository: Path) -> tuple[str, ...]:
    """Names of the models that a repository should hold: all steps in order, then the ensembles, ``recommend`` last.

    Raises:
        ReleaseError: The ensemble's config cannot be read, or has no recall step.
    """
    path = repository / ENSEMBLE.name
    named = [step.model_name for step in read_config(path).ensemble_scheduling.step]
    sources = [name.removeprefix(RECALL_PREFIX) for name in named if name.startswith(RECALL_PREFIX)]
    if not sources:
        raise ReleaseError("ensemble has no recall step", where=str(path / CONFIG_FILE), found=", ".join(named))
    wanted = [spec.name for spec in steps(sources)]
    _expect(path / CONFIG_FILE, "steps", wanted, named)
    *extras, last = ensembles_of(repository)
    own = [spec.name for name in extras for spec in EXTRAS[name].own]
    return (*wanted, *own, *extras, last)


def ensembles_of(repository: Path) -> tuple[str, ...]:
    """Names of the models that a server loads: the extra ensembles that are there, then ``recommend``."""
    return (*(name for name in EXTRAS if (repository / name).is_dir()), ENSEMBLE.name)


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


def _lint_model(model: Path, config: pb.ModelConfig) -> None:
    path = model / CONFIG_FILE
    _expect(path, "name", model.name, config.name)
    if config.max_batch_size < 1:
        raise ReleaseError("max_batch_size is missing", where=str(path), expected="1 or more")
    wanted = set(map(str, config.version_policy.specific.versions))
    if not wanted:
        raise ReleaseError("version_policy is not specific", where=str(path), expected="specific { versions: … }")
    versions = set()
    for entry in sorted(model.iterdir()):
        if entry.is_symlink():
            raise ReleaseError("symbolic link in the repository", where=str(entry))
        if entry.name == CONFIG_FILE:
            continue
        if not entry.is_dir() or not VERSION_NAME.fullmatch(entry.name):
            raise ReleaseError(
                "stray entry in a model folder",
                where=str(entry),
                expected=f"{CONFIG_FILE} and folders named {VERSION_NAME.pattern}",
            )
        versions.add(entry.name)
        _lint_version(entry, VERSION_FILES[RANK if model.name.startswith(RECALL_PREFIX) else model.name])
    missing = wanted - versions
    if missing:
        raise ReleaseError(
            "version in the policy has no folder",
            where=str(path),
            expected=f"folders {', '.join(sorted(wanted))}",
            found=", ".join(sorted(versions)) or "none",
        )


def _lint_version(folder: Path, files: frozenset[str]) -> None:
    entries = [entry for entry in folder.iterdir() if entry.name != COMPILED]
    for entry in entries:
        if entry.is_symlink() or not entry.is_file():
            raise ReleaseError("not a plain file in a version folder", where=str(entry))
        if entry.stat().st_size == 0:
            raise ReleaseError("empty file in a version folder", where=str(entry))
    _expect(folder, "files of the version", sorted(files), sorted(entry.name for entry in entries))


def _lint_ensemble(path: Path, configs: dict[str, pb.ModelConfig]) -> None:
    ensemble = configs[path.parent.name]
    version = pinned_version(ensemble, path)
    scheduled = ensemble.ensemble_scheduling.step
    tensors = dict(signature(ensemble).inputs)
    for step in scheduled:
        leaf = configs[step.model_name]
        if version not in leaf.version_policy.specific.versions:
            raise ReleaseError(
                f"ensemble pins {step.model_name} to a version that it does not serve",
                where=str(path),
                expected=", ".join(map(str, leaf.version_policy.specific.versions)),
                found=str(version),
            )
        if ensemble.max_batch_size > leaf.max_batch_size:
            raise ReleaseError(
                f"ensemble takes larger batches than {step.model_name}",
                where=str(path),
                expected=f"at most {leaf.max_batch_size}",
                found=str(ensemble.max_batch_size),
            )
        for name, kind in signature(leaf).outputs.items():
            if name in step.output_map:
                tensors[step.output_map[name]] = kind
    for step in scheduled:
        wanted = signature(configs[step.model_name]).inputs
        for name, kind in wanted.items():
            _expect(path, f"tensor for input {name} of {step.model_name}", kind, tensors.get(step.input_map[name]))
    for name, kind in signature(ensemble).outputs.items():
        _expect(path, f"output {name}", kind, tensors.get(name))


def _expect(where: Path, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise ReleaseError(f"wrong {what}", where=str(where), expected=str(expected), found=str(found))
