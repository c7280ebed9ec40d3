"""Verbs that train and tune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.settings import change_settings
from pipeline.console import Terminal
from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()


@app.command()
def train(
    models: Annotated[
        list[str] | None, typer.Argument(help="Recall models, ranker; recall.sources and ranker by default.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Train the recall models and the ranker, or the named ones."""
    from training.stage import train as train_models

    train_models(settings_from(config, set_), Terminal(), tuple(models or ()))


@app.command()
def federate(
    study: Annotated[
        bool, typer.Option(help="Measure: over rounds, even and skewed clients, strategies, privacy budgets.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Train mf by Flower: clients keep their users' events, secure aggregation adds up what they computed.

    Needs `make setup-flower`. Sections federated and private of the settings; with private.epsilon above 0 every
    user's part is clipped and noise is added, and the budget spent stands in the manifest.
    """
    settings = settings_from(config, set_)
    if study:
        from pipeline.federated_study import study as run_study

        run_study(settings, Terminal())
        return
    from pipeline.federate import federate as train_federated

    train_federated(settings, Terminal())


@app.command("tune")
def tune_model(
    model: Annotated[str, typer.Argument(help="A recall model (mf, gat, …) or ranker.")],
    search: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=RANGE", help="What to search, for example mf.dimension=int:8:128:log; may repeat."),
    ] = None,
    space: Annotated[Path | None, typer.Option(help="TOML file with a range per setting.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, random, grid, cmaes, annealing or nsga2.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all, those of earlier runs included.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes at once; they share the threads.")] = None,
    objectives: Annotated[str | None, typer.Option(help="quality, or a Pareto front of quality,size,latency.")] = None,
    pick: Annotated[
        str | None, typer.Option(help="best, or the smallest that is as good: one-se, one-se-paired.")
    ] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Pick only models up to this size.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Pick only models up to this latency.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; MODEL-SAMPLER by default.")] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Search for better settings of a model, by cross-validation over time windows before the test split.

    Without --search and --space the model's default space is searched. A range is int:LOW:HIGH or float:LOW:HIGH,
    then :log or :step=S, or choice:A,B,C. The same command goes on after an interruption. Windows, metric, pruner
    and more are in section tune of `conch settings`. Examples:

    \b
    conch tune mf
    conch tune mf --sampler grid --search mf.dimension=choice:8,16,32,64
    conch tune gat --search gat.drop=float:0:0.7 --trials 20
    conch train --config var/tuning/mf-tpe/best.toml
    """
    from pipeline.tune import Request, run_tuning

    flags = {
        "sampler": sampler,
        "trials": trials,
        "workers": workers,
        "objectives": None if objectives is None else [name.strip() for name in objectives.split(",")],
        "pick": pick,
        "max_size_mb": max_size_mb,
        "max_latency_ms": max_latency_ms,
    }
    chosen = {f"tune.{name}": value for name, value in flags.items() if value is not None}
    settings_ = change_settings(settings_from(config, set_), chosen)
    run_tuning(settings_, Request(model, study, space, tuple(search or ())), Terminal())


@app.command()
def features(
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; reports/features under paths.var by default.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Shuffles per feature.")] = 5,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Measure what each feature contributes to the ranker, and suggest which to keep."""
    from pipeline.features import report_features

    report_features(settings_from(config, set_), out, repeats, Terminal())
