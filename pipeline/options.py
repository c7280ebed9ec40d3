"""Options that every verb of the command line shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.settings import DEFAULT_FILE, Settings, load_settings

ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="Settings file over config/default.toml; may repeat, the last one wins."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="SECTION.KEY=VALUE", help="Changes one setting; may repeat."),
]


def settings_from(config: list[Path] | None, overrides: list[str] | None) -> Settings:
    """The settings that a command line asks for; an installed copy without config/ has the same defaults in code."""
    base = (DEFAULT_FILE,) if DEFAULT_FILE.is_file() else ()
    return load_settings((*base, *(config or ())), overrides or ())
