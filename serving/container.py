"""Triton as the process of a container: makes the repository agree with the pointer, then becomes tritonserver.

``python -m serving.container --config FILE [-- MORE]``: MORE goes to tritonserver. Signals, log and exit status are
Triton's own then, as whoever runs containers expects. ``conch serve`` is for machines without a container.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from core.errors import ConchError, ServerError
from core.settings import Settings, load_settings
from serving.command import find_installed, server_arguments
from serving.lint import lint_repository
from serving.live import prepare_start
from serving.release import live_repository
from serving.statefile import write_state


def prepare(settings: Settings, more: Sequence[str] = ()) -> list[str]:
    """Gets everything ready for this process to become Triton.

    Args:
        settings: ``paths.var`` holds the live repository.
        more: Further arguments.

    Returns:
        The command.

    Raises:
        ReleaseError: The repository is not one that Triton can load.
        ServerError: There is no tritonserver on the path.
    """
    var, serving = settings.paths.var, settings.serving
    binary = find_installed()
    if binary is None:
        raise ServerError("there is no tritonserver on the path", next_step="use NVIDIA's image, or `conch serve`")
    models = prepare_start(var)
    repository = live_repository(var)
    if not models:
        lint_repository(repository, serving)
    secret = secrets.token_hex(16)
    write_state(var, serving, os.getpid(), secret, repository)  # exec keeps the process id
    return [binary, *server_arguments(repository, str(repository.resolve()), serving, secret, models), *more]


def main(argv: list[str] | None = None) -> None:
    """Becomes Triton; exits with 2 where that cannot be."""
    given = sys.argv[1:] if argv is None else argv
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(prog="serving.container")
    parser.add_argument("--config", type=Path, action="append", default=[], help="settings file; may repeat")
    asked = parser.parse_args(given[:cut])
    try:
        command = prepare(load_settings(asked.config), given[cut + 1 :])
    except ConchError as error:
        sys.stderr.write(f"serving.container: {error}\n")
        sys.exit(2)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
