"""The `conch` command: the stage table as verbs, and the verbs around it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from core.errors import ConchError
from pipeline.commands import checking, compressing, events, gateway, loop, measuring, publish, serving, training
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
    if _stage.name not in ("train", "compress", "export"):  # verbs with options of their own
        _add_stage(_stage)

for _group in (checking, compressing, events, gateway, measuring, publish, serving, training, loop):
    app.add_typer(_group.app)


@app.command()
def run(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Do the whole chain: dataset, train, export, release."""
    run_stages(settings_from(config, set_), Terminal())


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
