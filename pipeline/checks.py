"""`conch lint`: all findings about a repository, one a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.errors import ReleaseError
from core.settings import Settings
from serving.lint import repository_findings
from serving.release import REPOSITORY, live_repository


def lint_folder(settings: Settings, folder: Path | None, configs_only: bool, say: Callable[[str], None]) -> int:
    """Says each finding and a last line; gives back how many there were.

    Args:
        settings: ``paths.var`` has the live repository; ``serving`` says what the server will run on.
        folder: A repository, or a release that holds one; None is the live one.
        configs_only: Leave versions and files alone.
        say: Takes one line.

    Raises:
        ReleaseError: There is no such folder.
    """
    path = folder or live_repository(settings.paths.var)
    if (path / REPOSITORY).is_dir():
        path = path / REPOSITORY
    if not path.is_dir():
        raise ReleaseError("no model repository", where=str(path), next_step="run `conch release`")
    findings = repository_findings(path, settings.serving, files=not configs_only)
    for finding in findings:
        say(str(finding))
    say(f"lint: {path}: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}")
    return len(findings)
