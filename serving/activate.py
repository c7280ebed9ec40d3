"""Makes a release the live one on disk: the next start of Triton serves it.

Every step leaves a repository that serves the old release or the new one, never a mixture, so that a crash at any
point needs no repair; running it again finishes the job. New versions are staged outside the model folders, on the
same file system, and renamed in, since Triton reads whatever lies in a model folder. Ensembles are flipped last: each
is pinned to one version, and the release is live when `recommend` is.
"""

from __future__ import annotations

import ctypes
import errno
import os
import py_compile
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from core.artifacts import MANIFEST, load_artifact, sha256_of, sync_folder
from core.ensembles import MODEL_SEPARATOR
from core.errors import ReleaseError
from core.tensors import ENSEMBLE
from serving.lint import CONFIG_FILE, lint_repository, models_of, pinned_version, read_config, signature
from serving.release import REPOSITORY, STEP_FILE, VERSION_NAME, ReleaseInfo, read_release

AT_FDCWD, RENAME_EXCHANGE = -100, 2

AfterStep = Callable[[str], None]


def live_release(repository: Path) -> ReleaseInfo | None:
    """The release that the repository serves, None where there is no repository yet.

    Raises:
        ReleaseError: There is one, but it cannot be read.
    """
    ensemble = repository / ENSEMBLE.name
    if not (ensemble / CONFIG_FILE).is_file():
        return None
    return read_release(ensemble / str(pinned_version(read_config(ensemble), ensemble)))


def install_release(release: Path, repository: Path, after: AfterStep = lambda step: None) -> ReleaseInfo:
    """Puts a release into the live repository and makes it the one that the next start serves.

    The release before it stays installed; installing that one again is the way back. Older ones are removed.
    A release whose tensors or batch limit differ from the live one's replaces the whole repository at once, because
    a model has one config for all its versions.

    Args:
        release: Folder of a release, checked against its manifest if it has one.
        repository: The live repository; made where it is missing.
        after: Called with the name of each durable step.

    Raises:
        ReleaseError: A release that breaks the rules, or whose version number is live with other content.
        ArtifactError: A file differs from the manifest.
    """
    info = read_release(release)
    source = release / REPOSITORY
    lint_repository(source)
    if (release / MANIFEST).is_file():
        load_artifact(release).verify()
    repository.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(repository.parent / f".{repository.name}.lock"):
        staging = repository.parent / f".{repository.name}.staging"
        shutil.rmtree(staging, ignore_errors=True)  # what a crash left
        staging.mkdir()
        live = live_release(repository)
        if live is None or not _same_shape(source, repository):
            _replace_all(source, repository, staging, after)
        else:
            _add_version(source, repository, staging, live.version, info.version, after)
        shutil.rmtree(staging)
    return info


def _same_shape(source: Path, repository: Path) -> bool:
    models = models_of(source)
    if models != models_of(repository) or any(MODEL_SEPARATOR in path.name for path in repository.iterdir()):
        return False  # releases that were published beside each other are serving.publish's
    for name in models.names:
        new, old = read_config(source / name), read_config(repository / name)
        if signature(new) != signature(old) or new.max_batch_size != old.max_batch_size:
            return False
    return True


def _replace_all(source: Path, repository: Path, staging: Path, after: AfterStep) -> None:
    fresh = staging / "fresh"
    _copy(source, fresh)
    after("staged")
    if repository.exists():
        _exchange(fresh, repository)
    else:
        fresh.rename(repository)
    sync_folder(repository.parent)
    after("flipped")


def _add_version(source: Path, repository: Path, staging: Path, old: int, new: int, after: AfterStep) -> None:
    models = models_of(source)
    for name in models.names:
        _install_version(source / name / str(new), repository / name / str(new), staging, is_live=new == old)
        after(f"version of {name}")
    for name in models.leaves:
        config = read_config(source / name)
        del config.version_policy.specific.versions[:]
        config.version_policy.specific.versions.extend(sorted({old, new}))
        _replace_config(config, repository / name, staging)
        after(f"config of {name}")
    for name in models.ensembles:  # `recommend`, which says what is live, comes last
        _replace_config(read_config(source / name), repository / name, staging)
        after("flipped" if name == ENSEMBLE.name else f"{name} flipped")
    for name in models.names:
        for folder in (repository / name).iterdir():
            if VERSION_NAME.fullmatch(folder.name) and int(folder.name) not in (old, new):
                folder.rename(staging / f"retired-{name}-{folder.name}")
                after(f"retired {folder.name} of {name}")


def _install_version(source: Path, target: Path, staging: Path, *, is_live: bool) -> None:
    if target.is_dir():
        if _digests(source) == _digests(target):
            return
        if is_live:
            raise ReleaseError(
                f"version {target.name} is live with other content",
                where=str(target),
                expected="a version number that no release had before",
                next_step="assemble the release again: conch release",
            )
        target.rename(staging / f"replaced-{target.parent.name}")
    ready = staging / f"new-{target.parent.name}"
    _copy(source, ready)
    ready.rename(target)
    sync_folder(target.parent)


def _replace_config(config: pb.ModelConfig, model: Path, staging: Path) -> None:
    ready = staging / f"{model.name}.pbtxt"
    with ready.open("w", encoding="utf-8") as stream:
        stream.write(text_format.MessageToString(config))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(ready, model / CONFIG_FILE)
    sync_folder(model)


def _copy(source: Path, target: Path) -> None:
    """Copies a folder, compiles its Python and makes sure that all of it is on disk.

    Triton's stub would write the compiled file at the first start (its interpreter is isolated, so that
    PYTHONDONTWRITEBYTECODE does not reach it), and a file added to a served version makes Triton reload it.
    """
    shutil.copytree(source, target)
    for step in target.rglob(STEP_FILE):
        py_compile.compile(str(step), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    for path in target.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        else:
            sync_folder(path)
    sync_folder(target)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file()}


def _exchange(one: Path, other: Path) -> None:
    """Swaps two folders in one step where the file system can; in two renames elsewhere (NFS)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(other))
    other.rename(one.with_name("old"))
    one.rename(other)
