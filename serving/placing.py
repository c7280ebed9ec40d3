"""Where the files of a release lie in a live repository, beside those of other releases.

A leaf holds one version per release. Triton has one config per model and reloads every version when it changes, so a
leaf whose config differs in anything but its versions goes under another name, ``rank.1f0c9a2b``. Every release has
its own ensembles, ``recommend.r000012``, pinned to its version of its leaves; they never change. The aliases
(``recommend``, …) are copies of the live release's ensembles.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from core.artifacts import replace_file, sync_folder
from core.ensembles import EXTRAS, MODEL_SEPARATOR, base_model, release_model
from core.errors import PublishError
from core.tensors import ENSEMBLE
from serving.activate import _copy, _digests
from serving.lint import CONFIG_FILE, models_of, pinned_version, read_config
from serving.release import RELEASE_FILE, VERSION_NAME
from serving.sums import SUMS_FILE, write_sums

FINGERPRINT_LETTERS = 8


@dataclass(frozen=True)
class Placement:
    """Names of a release's models in a repository.

    Attributes:
        release_id: The release.
        version: Of all its models.
        leaves: Step to its name here.
        ensembles: Names of its own ensembles, that of ``recommend`` last.
    """

    release_id: str
    version: int
    leaves: dict[str, str]
    ensembles: tuple[str, ...]


def plan(source: Path, repository: Path, release_id: str) -> Placement:
    """Where the models of a release go, given what lies there."""
    models = models_of(source)
    leaves = {}
    for name in models.leaves:
        config, taken = read_config(source / name), repository / name / CONFIG_FILE
        same = not taken.is_file() or fingerprint(read_config(taken.parent)) == fingerprint(config)
        leaves[name] = name if same else f"{name}{MODEL_SEPARATOR}{fingerprint(config)}"
    version = pinned_version(read_config(source / ENSEMBLE.name), source)
    return Placement(release_id, version, leaves, tuple(release_model(name, release_id) for name in models.ensembles))


def fingerprint(config: pb.ModelConfig) -> str:
    """Equal for configs that may share a model: all but name and versions."""
    bare = pb.ModelConfig()
    bare.CopyFrom(config)
    bare.ClearField("name")
    bare.ClearField("version_policy")
    return hashlib.sha256(text_format.MessageToString(bare).encode()).hexdigest()[:FINGERPRINT_LETTERS]


def place_version(source: Path, repository: Path, placement: Placement, step: str, staging: Path) -> None:
    """Puts the version folder of a leaf there: staged outside, with checksums and synced, then renamed in.

    Raises:
        PublishError: The version is there with other content.
    """
    name, version = placement.leaves[step], str(placement.version)
    model = repository / name
    target = model / version
    if target.is_dir():
        there = {file: digest for file, digest in _digests(target).items() if file != SUMS_FILE}
        if there != _digests(source / step / version):
            raise PublishError(
                f"version {version} is there with other content", where=str(target),
                expected="a version number that no release had before",
                next_step="assemble the release again: conch release",
            )  # fmt: skip
        return
    ready = staging / f"{name}-{version}"
    shutil.rmtree(ready, ignore_errors=True)
    _copy(source / step / version, ready)
    write_sums(ready)
    with (ready / SUMS_FILE).open("rb") as stream:
        os.fsync(stream.fileno())
    sync_folder(ready)
    if model.is_dir():
        ready.rename(target)
        sync_folder(model)
        return
    fresh = staging / name  # a new model comes with its config at once
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    ready.rename(fresh / version)
    config = read_config(source / step)
    config.name = name
    replace_file(fresh / CONFIG_FILE, text_format.MessageToString(config).encode())
    fresh.rename(model)
    sync_folder(repository)


def set_versions(repository: Path, leaf: str, versions: Collection[int]) -> bool:
    """Writes the versions that a leaf serves; False where its config says so already."""
    config = read_config(repository / leaf)
    if list(config.version_policy.specific.versions) == sorted(versions):
        return False
    del config.version_policy.specific.versions[:]
    config.version_policy.specific.versions.extend(sorted(versions))
    write_config(repository / leaf, config)
    return True


def place_ensembles(source: Path, repository: Path, placement: Placement, staging: Path) -> None:
    """Writes the ensembles of the release, each step pinned."""
    for name in placement.ensembles:
        if (repository / name).is_dir():
            continue
        config = read_config(source / base_model(name))
        config.name = name
        for step in config.ensemble_scheduling.step:
            step.model_name = placement.leaves[step.model_name]
        fresh = staging / name
        shutil.rmtree(fresh, ignore_errors=True)
        _copy(source / base_model(name) / str(placement.version), fresh / str(placement.version))
        replace_file(fresh / CONFIG_FILE, text_format.MessageToString(config).encode())
        fresh.rename(repository / name)
    sync_folder(repository)


def alias_config(repository: Path, alias: str, release_id: str) -> pb.ModelConfig | None:
    """What an alias says while a release is live; None where that release does not serve it."""
    if not (repository / release_model(alias, release_id)).is_dir():
        return None
    config = read_config(repository / release_model(alias, release_id))
    config.name = alias
    return config


def aliases() -> tuple[str, ...]:
    """All aliases, ``recommend`` last."""
    return (*EXTRAS, ENSEMBLE.name)


def write_alias(repository: Path, config: pb.ModelConfig, staging: Path) -> None:
    """Puts an alias there, or replaces its config in one step."""
    model, version = repository / config.name, str(pinned_version(config, repository / config.name))
    if not (model / version).is_dir():
        ensemble = next(
            path for path in sorted(repository.glob(f"{config.name}{MODEL_SEPARATOR}*")) if (path / version).is_dir()
        )
        fresh = staging / f"{config.name}-{version}"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(ensemble / version, fresh)
        if not model.is_dir():
            whole = staging / config.name
            shutil.rmtree(whole, ignore_errors=True)
            whole.mkdir()
            fresh.rename(whole / version)
            write_config(whole, config)
            whole.rename(model)
            return
        fresh.rename(model / version)
    write_config(model, config)


def write_config(model: Path, config: pb.ModelConfig) -> None:
    """Replaces ``config.pbtxt``; the temporary file lies outside the model folder, which Triton watches."""
    temporary = model.parent.parent / f".{model.parent.name}.{model.name}.pbtxt"
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text_format.MessageToString(config))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, model / CONFIG_FILE)


def release_ensembles(repository: Path, release_id: str) -> tuple[str, ...]:
    """The ensembles of a release that lie in a repository, that of ``recommend`` last."""
    names = (release_model(alias, release_id) for alias in aliases())
    return tuple(name for name in names if (repository / name / CONFIG_FILE).is_file())


def releases_in(repository: Path) -> dict[str, int]:
    """Releases whose own ensembles lie in a repository, and their versions."""
    found = {}
    for path in sorted(repository.glob(f"{ENSEMBLE.name}{MODEL_SEPARATOR}*")):
        found[path.name.partition(MODEL_SEPARATOR)[2]] = pinned_version(read_config(path), path)
    return found


def pins_of(repository: Path, ensembles: Collection[str]) -> dict[str, set[int]]:
    """Versions of each leaf that these ensembles pin."""
    pinned: dict[str, set[int]] = {}
    for name in ensembles:
        for step in read_config(repository / name).ensemble_scheduling.step:
            pinned.setdefault(step.model_name, set()).add(int(step.model_version))
    return pinned


def leaves_in(repository: Path) -> Iterator[str]:
    """Models of a repository that are no ensembles."""
    for path in sorted(repository.iterdir()):
        if (path / CONFIG_FILE).is_file() and read_config(path).platform != "ensemble":
            yield path.name


def sweep(repository: Path, staging: Path) -> None:
    """Removes what no ensemble in the repository needs: versions, leaves, and alias versions."""
    ensembles = [path.name for path in sorted(repository.iterdir()) if read_config(path).platform == "ensemble"]
    pinned = pins_of(repository, ensembles)
    for name in ensembles:
        pinned[name] = {pinned_version(read_config(repository / name), repository / name)}
    for model in sorted(repository.iterdir()):
        wanted = pinned.get(model.name, set())
        served = set(read_config(model).version_policy.specific.versions) if wanted else set()
        for folder in model.iterdir():
            if VERSION_NAME.fullmatch(folder.name) and int(folder.name) not in wanted | served:
                _discard(folder, staging)
        if not wanted:
            _discard(model, staging)


def release_of(repository: Path, alias: str = ENSEMBLE.name) -> str | None:
    """The release that an alias serves, from its version folder; None where there is no such alias."""
    model = repository / alias
    if not (model / CONFIG_FILE).is_file():
        return None
    version = pinned_version(read_config(model), model)
    return str(json.loads((model / str(version) / RELEASE_FILE).read_bytes())["release_id"])


def _discard(path: Path, staging: Path) -> None:
    target = staging / f"gone-{path.parent.name}-{path.name}"
    shutil.rmtree(target, ignore_errors=True)
    path.rename(target)
    shutil.rmtree(target, ignore_errors=True)
