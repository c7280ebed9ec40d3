"""Verbs that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.sections import Target
from pipeline.console import Terminal
from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()


@app.command()
def evaluate(
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write all numbers.")] = None,
    split: Annotated[str, typer.Option(help="Split to predict.")] = "test",
    target: Annotated[Target, typer.Option(help="A hit is any later event, or only a liked one.")] = "any",
    ratings: Annotated[bool, typer.Option(help="Measure the newest rating model instead.")] = False,
    diversity: Annotated[
        str | None, typer.Option(help="Measure what variety costs at these strengths instead, such as 0,0.1,0.3.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Measure the newest release per stage and end to end on held-out events."""
    if ratings:
        from pipeline.ratings import evaluate_ratings

        evaluate_ratings(settings_from(config, set_), split, json_file, Terminal())
        return
    if diversity is not None:
        from pipeline.evaluation import evaluate_diversity
        from pipeline.tradeoff import read_strengths

        strengths = read_strengths(diversity)
        evaluate_diversity(settings_from(config, set_), split, strengths, json_file, Terminal(), target)
        return
    from pipeline.evaluation import evaluate_release

    evaluate_release(settings_from(config, set_), split, json_file, Terminal(), target)


@app.command()
def privacy(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Attack the recall models: can somebody tell whose events they learned from? For the report."""
    from pipeline.privacy import measure_privacy

    measure_privacy(settings_from(config, set_), Terminal())


@app.command()
def report(
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; report.html under paths.var by default.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split to predict.")] = "test",
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Write one HTML page about the newest release: quality, slices, learning curves, calibration, parity."""
    from pipeline.report.page import write_report

    write_report(settings_from(config, set_), split, out, Terminal())
