"""The verb that makes models small."""

from __future__ import annotations

from typing import Annotated

import typer

from core.sections import GoalName
from pipeline.console import Terminal
from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()
GOAL_MISSED = 3
"""Exit code: everything ran, and nothing meets the goal."""


@app.command()
def compress(
    goal: Annotated[GoalName | None, typer.Option(help="Limits on size and quality; compress.goal by default.")] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Search for small tables and a small ranker that rank as fp32 does; exit code 3 where none meets the goal."""
    from core.settings import override
    from pipeline.compressing.stage import GoalMissedError
    from pipeline.compressing.stage import compress as run

    settings = settings_from(config, set_)
    if goal is not None:
        settings = override(settings, [f"compress.goal={goal}"])
    try:
        run(settings, Terminal())
    except GoalMissedError as error:
        typer.secho(f"conch: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(GOAL_MISSED) from None
