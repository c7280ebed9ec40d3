"""Verbs that check what others made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()


@app.command()
def lint(
    folder: Annotated[
        Path | None, typer.Argument(help="A model repository or a release; the live repository where not given.")
    ] = None,
    configs_only: Annotated[bool, typer.Option(help="Look at the configs alone, not at versions and files.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Find what Triton would choke on, hang on or answer wrongly with, before it loads a model repository."""
    from pipeline.checks import lint_folder

    raise typer.Exit(2 if lint_folder(settings_from(config, set_), folder, configs_only, typer.echo) else 0)


@app.command("check-tensorrt")
def check_tensorrt(
    out: Annotated[Path | None, typer.Option(help="JSON report to write.")] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Compile the newest graphs with TensorRT for RTX on the CPU (extra rtx): would NVIDIA's parser take them?"""
    from export.tensorrt.check import check_graphs, must_accept

    must_accept(check_graphs(settings_from(config, set_), out, typer.echo))
