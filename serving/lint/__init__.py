"""Checks a model repository before Triton sees it.

Triton 2.51 aborts on a version name above int64, hangs on a version folder without its model file, reads ``12.tmp``
as version 12, and takes an ensemble down whose pinned version is not there or that has a tensor which nothing reads.
All of these are found here instead, and all that is wrong is told at once.
"""

from __future__ import annotations

from pathlib import Path

from core.errors import ReleaseError
from core.findings import Finding, refuse
from core.sections import ServingSettings
from serving.lint import configs, contents, ensembles, folders, running
from serving.lint.layout import (
    CONFIG_FILE,
    Models,
    Signature,
    ensembles_of,
    models_of,
    pinned_version,
    read_config,
    signature,
)
from serving.lint.repository import Rule, read_repository

__all__ = [
    "CONFIG_FILE",
    "CONFIG_RULES",
    "FILE_RULES",
    "Models",
    "Signature",
    "ensembles_of",
    "lint_repository",
    "models_of",
    "pinned_version",
    "read_config",
    "repository_findings",
    "signature",
]

CONFIG_RULES: tuple[Rule, ...] = (
    configs.identity,
    configs.versions,
    configs.batches,
    configs.tensors,
    configs.unserved_parts,
    running.ensemble_extras,
    running.instances,
    running.accelerators,
    running.warmups,
    ensembles.pins,
    ensembles.batch_limits,
    ensembles.tensor_graph,
    ensembles.loops,
)
"""What the configs alone show."""
FILE_RULES: tuple[Rule, ...] = (
    folders.models_present,
    folders.version_names,
    folders.version_folders,
    folders.version_files,
    contents.graphs,
    contents.python_steps,
    contents.tables,
    contents.plans,
)
"""What the folders and files show."""


def lint_repository(repository: Path, serving: ServingSettings | None = None) -> None:
    """Checks everything that can be checked without loading.

    Raises:
        ReleaseError: All faults: missing, stray, damaged or foreign files, bad names, symlinks, unpinned or missing
            versions, configs that Triton chokes on or that answer wrongly, an ensemble that does not fit its steps.
    """
    if not repository.is_dir():
        raise ReleaseError(
            "no model repository", where=str(repository), next_step="run `conch release`, then `conch activate`"
        )
    refuse(repository_findings(repository, serving), ReleaseError)


def repository_findings(
    repository: Path, serving: ServingSettings | None = None, *, files: bool = True
) -> list[Finding]:
    """All that is wrong with a repository.

    Args:
        repository: Its folder.
        serving: Settings of the server that will load it, for rules about the machine.
        files: False looks at the configs alone, as in the committed ``model_repository/``, which has no weights.
    """
    seen = read_repository(repository, serving)
    rules = (*FILE_RULES, *CONFIG_RULES) if files else CONFIG_RULES
    return [*seen.unreadable, *(finding for rule in rules for finding in rule(seen))]
