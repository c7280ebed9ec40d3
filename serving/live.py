"""What a start of Triton serves: the releases of the pointer, whatever a crash left in the repository."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from core.errors import PublishError, ReleaseError
from serving.ledger import read_ledger
from serving.lint import CONFIG_FILE, pinned_version, read_config
from serving.placing import alias_config, aliases, pins_of, release_ensembles, releases_in, set_versions, write_alias
from serving.pointer import pointer_file, read_pointer
from serving.release import live_repository
from serving.sums import check_sums


def prepare_start(var: Path) -> tuple[str, ...]:
    """Makes the live repository agree with the pointer, and says what to load.

    Aliases follow the stable release, leaves serve the versions that the loaded ensembles pin; a candidate that was
    never promoted stays unloaded. Writes nothing where all agrees already.

    Args:
        var: ``paths.var``.

    Returns:
        Ensembles to load; empty where there is no pointer, and the repository serves its aliases alone.

    Raises:
        PublishError: The pointer names a release that is not in the repository.
    """
    repository = live_repository(var)
    pointer = read_pointer(pointer_file(var))
    if pointer is None or not repository.is_dir():
        return ()
    present = releases_in(repository)
    missing = [name for name in pointer.releases if name not in present]
    if missing:
        raise PublishError(
            "the pointer names a release that is not here", where=str(pointer_file(var)), found=", ".join(missing),
            expected=", ".join(present) or "a published release", next_step="conch activate RELEASE",
        )  # fmt: skip
    kept = (name for name in read_ledger(var).kept if name in present)
    releases = tuple(dict.fromkeys((*pointer.releases, *kept)))
    ensembles = [name for release in releases for name in release_ensembles(repository, release)]
    for leaf, versions in pins_of(repository, ensembles).items():
        set_versions(repository, leaf, versions)
    models = (*ensembles, *sync_aliases(repository, pointer.stable))
    check_live(repository, models)
    return models


def check_live(repository: Path, ensembles: Sequence[str]) -> None:
    """Checks what a start will load: pins, folders and checksums. All else was checked before it was published.

    Args:
        repository: The live one.
        ensembles: To be loaded.

    Raises:
        ReleaseError: A pin to nothing, or a file that is missing or differs; Triton would hang, or answer wrongly.
    """
    for leaf, versions in pins_of(repository, ensembles).items():
        for version in versions:
            folder = repository / leaf / str(version)
            if not (folder / read_config(repository / leaf).default_model_filename).is_file():
                raise ReleaseError("files of the version are missing", where=str(folder), next_step="conch activate")
            try:
                check_sums(folder)
            except ValueError as error:
                raise ReleaseError("files of the version differ", where=str(folder), found=str(error)) from None
    for name in ensembles:
        pinned_version(read_config(repository / name), repository / name)


def sync_aliases(repository: Path, release_id: str) -> tuple[str, ...]:
    """Makes the aliases on disk those of a release; gives them back, ``recommend`` last."""
    staging = repository.parent / f".{repository.name}.aliases"
    found = []
    for alias in aliases():
        config = alias_config(repository, alias, release_id)
        if config is None:
            shutil.rmtree(repository / alias, ignore_errors=True)
            continue
        found.append(alias)
        if not (repository / alias / CONFIG_FILE).is_file() or read_config(repository / alias) != config:
            staging.mkdir(exist_ok=True)
            write_alias(repository, config, staging)
    shutil.rmtree(staging, ignore_errors=True)
    return tuple(found)
