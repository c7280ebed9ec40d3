"""The `conch` command: the stage table as verbs, and the verbs around it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import ConchError
from core.sections import Target
from core.settings import change_settings
from pipeline.console import Terminal
from pipeline.options import ConfigOption, SetOption, settings_from
from pipeline.stages import STAGES, Stage, run_stages

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Conch: a two-stage recommender with graph attention, trained here and served on Triton.",
)


def _add_stage(stage: Stage) -> None:
    def verb(config: ConfigOption = None, set_: SetOption = None) -> None:
        run_stages(settings_from(config, set_), Terminal(), (stage.name,))

    app.command(stage.name, help=stage.help)(verb)


for _stage in STAGES:
    if _stage.name != "train":
        _add_stage(_stage)


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
def run(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Do the whole chain: dataset, train, export, release."""
    run_stages(settings_from(config, set_), Terminal())


@app.command()
def serve(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Serve the live release on a local Triton until Ctrl-C."""
    from pipeline.serve import serve_until_stopped

    serve_until_stopped(settings_from(config, set_), Terminal())


@app.command()
def recommend(
    user: Annotated[str | None, typer.Argument(help="One external user id.")] = None,
    users: Annotated[Path | None, typer.Option(help="File with user ids: one a line, or CSV with user_id.")] = None,
    k: Annotated[int, typer.Option(help="Items per user.")] = 10,
    stage: Annotated[str, typer.Option(help="pipeline, popularity, or a recall source such as gat.")] = "pipeline",
    out: Annotated[Path | None, typer.Option(help="CSV to write: user_id,item_id,rank,score.")] = None,
    session: Annotated[list[str] | None, typer.Option(help="Newest item of the session; repeat, oldest first.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Item that must not come back; may repeat.")] = None,
    diversity: Annotated[
        float | None, typer.Option(help="0 by score alone, 1 by variety alone; the release's default if not given.")
    ] = None,
    triton: Annotated[bool, typer.Option(help="Ask the running server instead of the graphs in process.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Recommend for one user (shown with reasons) or for a file of users (written as CSV)."""
    from pipeline.recommend import Ask, recommend_many, recommend_one

    settings = settings_from(config, set_)
    ask = Ask(k, stage, tuple(session or ()), tuple(exclude or ()), triton, diversity)
    if users is not None:
        recommend_many(settings, users, out, ask, Terminal())
    elif user is not None:
        recommend_one(settings, user, ask, Console(highlight=False))
    else:
        raise typer.BadParameter("give a user id, or --users FILE")


similar_app = typer.Typer(no_args_is_help=True, help="Show the items or users that are most like others.")
app.add_typer(similar_app, name="similar")


@similar_app.command("item")
def similar_item(
    items: Annotated[list[str], typer.Argument(help="Item ids; several are one question.")],
    k: Annotated[int, typer.Option(help="How many.")] = 10,
    triton: Annotated[bool, typer.Option(help="Ask the running server instead of the graphs in process.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """The items most like one, or like several together."""
    from pipeline.similar import show_similar_items

    show_similar_items(settings_from(config, set_), items, k, triton, Console(highlight=False))


@similar_app.command("user")
def similar_user(
    user: Annotated[str, typer.Argument(help="External user id.")],
    k: Annotated[int, typer.Option(help="How many.")] = 10,
    session: Annotated[list[str] | None, typer.Option(help="Newest item of the session; repeat, oldest first.")] = None,
    triton: Annotated[bool, typer.Option(help="Ask the running server instead of the graphs in process.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """The users whose taste is nearest to one's: for analysts. The release needs similar.users = true."""
    from pipeline.similar import show_similar_users

    show_similar_users(settings_from(config, set_), user, session or [], k, triton, Console(highlight=False))


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


@app.command()
def rate(
    user: Annotated[str, typer.Argument(help="External user id; an unknown one is rated as a new user.")],
    items: Annotated[list[str], typer.Argument(help="External item ids.")],
    session: Annotated[list[str] | None, typer.Option(help="Newest item of the session; repeat, oldest first.")] = None,
    triton: Annotated[bool, typer.Option(help="Ask the running server instead of the graphs in process.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Say what rating a user would give items, and how likely each is liked."""
    from pipeline.rate import rate_items

    rate_items(settings_from(config, set_), user, items, session or [], triton, json_, Console(highlight=False))


@app.command()
def demo(config: ConfigOption = None, set_: SetOption = None) -> None:
    """MovieLens in, recommendations out of a real Triton: the whole chain, then three users."""
    from pipeline.demo import run_demo

    run_demo(settings_from(config, set_), Terminal())


@app.command()
def doctor(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Check that this machine has what Conch needs, and name the fix where it has not."""
    from pipeline.doctor import examine

    raise typer.Exit(0 if examine(settings_from(config, set_), Console(highlight=False)) else 2)


@app.command()
def settings(
    config: ConfigOption = None,
    set_: SetOption = None,
    write_default: Annotated[bool, typer.Option(help="Rewrite config/default.toml from the code.")] = False,
) -> None:
    """Show all settings with their meaning, as TOML."""
    from core.settings import DEFAULT_FILE, Settings
    from pipeline.settings_file import render

    if write_default:
        DEFAULT_FILE.write_text(render(Settings()), encoding="utf-8")
    else:
        typer.echo(render(settings_from(config, set_)), nl=False)


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 2 an expected failure that was explained, 1 a bug with its traceback."""
    # Threads that spin while they wait make a busy machine up to thirty times slower; sleeping ones cost a few
    # percent on an idle one. Read by the OpenMP runtime when torch is first imported, which the verbs do later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # numpy's own BLAS threads spin too, over matrices that are too small to share.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(guarded(lambda: app(args=argv, standalone_mode=True)))


def guarded(work: Callable[[], object]) -> int:
    """Runs ``work``; tells a :class:`ConchError` without a traceback and gives back the exit code."""
    try:
        work()
    except ConchError as error:
        typer.secho(f"conch: {error}", err=True, fg=typer.colors.RED)
        return 2
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        return 130
    return 0
