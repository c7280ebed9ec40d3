"""Takes over a repository that was installed before there was a pointer: its live release gets ensembles of its own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format

from core.artifacts import replace_file
from core.ensembles import release_model
from serving.ledger import ledger_file, read_ledger, write_record
from serving.lint import CONFIG_FILE, pinned_version, read_config
from serving.placing import aliases, release_of
from serving.pointer import Pointer, pointer_file, replace_pointer


def adopt(var: Path, repositories: Sequence[Path]) -> None:
    """Writes the first pointer for what the aliases serve; nothing happens where they serve nothing.

    Args:
        var: ``paths.var``.
        repositories: Of the replicas, which serve the same release.
    """
    found = None
    for repository in repositories:
        found = release_of(repository)
        if found is None:
            return
        _copy_aliases(repository, found)
    if found is not None:
        write_record(ledger_file(var), read_ledger(var).with_live(found))
        replace_pointer(pointer_file(var), Pointer(epoch=1, stable=found))


def _copy_aliases(repository: Path, release_id: str) -> None:
    for alias in aliases():
        name = release_model(alias, release_id)
        if not (repository / alias / CONFIG_FILE).is_file() or (repository / name).is_dir():
            continue
        config = read_config(repository / alias)
        version = str(pinned_version(config, repository / alias))
        fresh = repository.parent / f".{repository.name}.{name}"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(repository / alias / version, fresh / version)
        config.name = name
        replace_file(fresh / CONFIG_FILE, text_format.MessageToString(config).encode())
        fresh.rename(repository / name)
