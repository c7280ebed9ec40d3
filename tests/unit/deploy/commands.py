"""Commands in manifests, checked against the programs that they start."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import typer

from core.settings import load_settings
from pipeline.cli import app

TRITON = re.compile(r"--[a-z][a-z-]*(=.*)?")


def check_command(command: Sequence[str]) -> None:
    """Raises where a command line names a verb, an option or a module that there is not."""
    program, *arguments = command
    if program == "conch":
        _check_verb(typer.main.get_command(app), list(arguments))
        settings = [text.removeprefix("--set=") for text in arguments if text.startswith("--set=")]
        load_settings((), settings)
        return
    assert (program, arguments[0]) == ("python", "-m"), command
    module = importlib.import_module(arguments[1])
    rest = list(arguments[2:])
    if "--" in rest:
        cut = rest.index("--")
        assert all(TRITON.fullmatch(one) for one in rest[cut + 1 :])
        rest = rest[:cut]
    known = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert callable(module.main)
    for argument in rest:
        if argument.startswith("--"):
            assert f'add_argument("{argument.partition("=")[0]}"' in known, argument


def settings_of(*texts: str) -> Mapping[str, Any]:
    """The settings that TOML texts make, the last one winning. Raises where one names a key that there is not."""
    trees = [tomllib.loads(text) for text in texts]
    overrides = [f"{section}.{key}={_toml(value)}" for tree in trees for section, keys in tree.items()
                 for key, value in keys.items()]  # fmt: skip
    return load_settings((), overrides).model_dump()


def containers(pod: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All containers of a pod, in the order in which they start."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def _check_verb(group: click.Command, arguments: list[str]) -> None:
    command, name = group, "conch"
    while isinstance(command, click.Group):
        name = arguments.pop(0)
        found = command.commands.get(name)
        assert found is not None, f"no verb {name}"
        command = found
    paths = [text for text in arguments if text.startswith("--config=")]
    assert paths, f"{name} without settings"
    command.make_context(name, arguments)


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
