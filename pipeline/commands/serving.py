"""Verbs that serve and ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.console import Terminal
from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()


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
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Attribute of the user, for example age=25; repeat.")
    ] = None,
    triton: Annotated[bool, typer.Option(help="Ask the running server instead of the graphs in process.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Recommend for one user (shown with reasons) or for a file of users (written as CSV)."""
    from pipeline.recommend import Ask, read_attributes, recommend_many, recommend_one

    settings = settings_from(config, set_)
    ask = Ask(k, stage, tuple(session or ()), tuple(exclude or ()), triton, diversity, read_attributes(attribute or ()))
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
