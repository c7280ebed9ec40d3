"""Checks a model repository before Triton sees it.

Triton 2.51 aborts on a version name above int64, hangs on a version folder without its model file, reads ``12.tmp``
as version 12, and takes an ensemble down whose pinned version is not there or that has a tensor which nothing reads.
All of these are found here instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from core.ensembles import EXTRAS, leaf_steps, served_ensembles
from core.errors import ReleaseError
from core.tensors import ENSEMBLE, RECALL_PREFIX
from serving.release import GRAPH_FILE, RELEASE_FILE, STEP_FILE, VERSION_NAME
from serving.state import CODES_FILE, HISTORY_FILE, RERANK_FILE, STATE_FILE, USERS_FILE, VOCABULARY_FILE

CONFIG_FILE = "config.pbtxt"
STEP_FILES: dict[str, frozenset[str]] = {
    "context": frozenset({STEP_FILE, VOCABULARY_FILE, HISTORY_FILE, STATE_FILE}),
    "respond": frozenset({STEP_FILE, VOCABULARY_FILE, RERANK_FILE, STATE_FILE}),
    "name_users": frozenset({STEP_FILE, USERS_FILE, STATE_FILE}),
    "rate_items": frozenset({STEP_FILE, VOCABULARY_FILE, STATE_FILE}),
}
"""What the version folder of each python step holds: this, and Python's compiled files."""
MAY_LACK = {CODES_FILE}
"""Releases from before requests could bring attributes have none."""
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
    models = models_of(repository)
    _expect(repository, "models in the repository", sorted(models.names), sorted(p.name for p in repository.iterdir()))
    configs = {name: read_config(repository / name) for name in models.names}
    for name, config in configs.items():
        _lint_model(repository / name, config, models.files[name])
    for ensemble in models.ensembles:
        _lint_ensemble(repository / ensemble / CONFIG_FILE, ensemble, configs)


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
    files = {step.name: STEP_FILES.get(step.name, frozenset({GRAPH_FILE})) for step in leaves}
    names = tuple(ensemble.spec.name for ensemble in ensembles)
    return Models(tuple(files), names, files | dict.fromkeys(names, frozenset({RELEASE_FILE})))


def ensembles_of(repository: Path) -> tuple[str, ...]:
    """Names of the models that a server loads: the extra ensembles that are there, then ``recommend``."""
    return (*(name for name in EXTRAS if (repository / name).is_dir()), ENSEMBLE.name)


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


def _lint_model(model: Path, config: pb.ModelConfig, files: frozenset[str]) -> None:
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
        _lint_version(entry, files)
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
    _expect(folder, "files of the version", sorted(files), sorted({entry.name for entry in entries} - MAY_LACK))


def _lint_ensemble(path: Path, name: str, configs: dict[str, pb.ModelConfig]) -> None:
    ensemble = configs[name]
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
        for output, kind in signature(leaf).outputs.items():
            if output in step.output_map:
                tensors[step.output_map[output]] = kind
    for step in scheduled:
        leaf = configs[step.model_name]
        optional = {tensor.name for tensor in leaf.input if tensor.optional}
        for given, kind in signature(leaf).inputs.items():
            if given in optional and given not in step.input_map:
                continue
            _expect(path, f"tensor for input {given} of {step.model_name}", kind, tensors.get(step.input_map[given]))
    for output, kind in signature(ensemble).outputs.items():
        _expect(path, f"output {output}", kind, tensors.get(output))
    read = {tensor for step in scheduled for tensor in step.input_map.values()} | set(signature(ensemble).outputs)
    _expect(path, "tensors that nothing reads", [], sorted(set(tensors) - read))


def _expect(where: Path, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise ReleaseError(f"wrong {what}", where=str(where), expected=str(expected), found=str(found))
