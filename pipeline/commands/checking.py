"""Verbs that export, and that check what was exported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()


@app.command()
def export(
    target: Annotated[
        str | None, typer.Option(help="onnx, or tensorrt for plans too; export.target where not given.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Export to ONNX and prove parity with torch; with --target tensorrt build plans as well."""
    from pipeline.console import Terminal
    from pipeline.stages import run_stages

    chosen = [f'export.target="{target}"'] if target else []
    run_stages(settings_from(config, [*(set_ or ()), *chosen]), Terminal(), ("export",))


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
