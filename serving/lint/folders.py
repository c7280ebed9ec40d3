"""Rules about what lies in the folders. Triton reads names, not intentions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.findings import Finding
from serving.lint.layout import COMPILED, CONFIG_FILE, MAY_LACK, is_beside
from serving.lint.repository import Repository
from serving.release import VERSION_NAME


def models_present(seen: Repository) -> Iterator[Finding]:
    """Exactly the models that the ensembles name: a stray folder is loaded too, or counts as a failed model."""
    if seen.models is None:
        return
    wanted, found = sorted(seen.models.names), sorted(e.name for e in seen.path.iterdir() if not is_beside(e))
    if wanted != found:
        yield Finding("models-present", str(seen.path), "wrong models in the repository", str(wanted), str(found))


def version_names(seen: Repository) -> Iterator[Finding]:
    """Triton 2.51 reads ``12.tmp`` as version 12, aborts above int64 and reloads a model over a stray entry."""
    for name in seen.configs:
        for entry in sorted((seen.path / name).iterdir()):
            if entry.is_symlink():
                yield Finding("no-links", str(entry), "symbolic link in the repository")
            elif entry.name != CONFIG_FILE and not (entry.is_dir() and VERSION_NAME.fullmatch(entry.name)):
                wanted = f"{CONFIG_FILE} and folders named {VERSION_NAME.pattern}"
                yield Finding("version-name", str(entry), "stray entry in a model folder", wanted)


def version_folders(seen: Repository) -> Iterator[Finding]:
    """A version that the policy names and that has no folder fails to load; an ensemble on it goes down."""
    for name, config in seen.configs.items():
        versions = {entry.name for entry in (seen.path / name).iterdir() if entry.is_dir()}
        wanted = set(map(str, config.version_policy.specific.versions))
        if wanted - versions:
            yield Finding(
                "version-folder",
                str(seen.config_path(name)),
                "version in the policy has no folder",
                f"folders {', '.join(sorted(wanted))}",
                ", ".join(sorted(versions)) or "none",
            )


def version_files(seen: Repository) -> Iterator[Finding]:
    """A version folder without its model file hangs the load, and a file more may reload the model."""
    if seen.models is None:
        return
    for name, files in seen.models.files.items():
        for folder in versions_of(seen, name):
            entries = [entry for entry in folder.iterdir() if entry.name != COMPILED]
            for entry in entries:
                if entry.is_symlink() or not entry.is_file():
                    yield Finding("plain-files", str(entry), "not a plain file in a version folder")
                elif entry.stat().st_size == 0:
                    yield Finding("empty-file", str(entry), "empty file in a version folder")
            found = sorted({entry.name for entry in entries} - MAY_LACK)
            if found != sorted(files - MAY_LACK):
                what = "wrong files of the version"
                yield Finding("version-files", str(folder), what, str(sorted(files - MAY_LACK)), str(found))


def versions_of(seen: Repository, name: str) -> Iterator[Path]:
    """Version folders of a model, lowest name first."""
    model = seen.path / name
    if model.is_dir() and not model.is_symlink():
        yield from (e for e in sorted(model.iterdir()) if e.is_dir() and not e.is_symlink() and e.name.isdigit())
