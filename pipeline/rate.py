"""`conch rate`: one user's expected ratings of some items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import load_dataset
from core.settings import Settings
from serving.rate import LocalRater, RateClient, Ratings


def rate_items(
    settings: Settings,
    user: str,
    items: Sequence[str],
    session: Sequence[str],
    triton: bool,
    as_json: bool,
    console: Console,
) -> None:
    """Prints the newest release's ratings as a table or as JSON.

    Raises:
        ReleaseError: The newest release has no rating model.
        RequestError: An id that cannot be one.
        ServerError: Triton was asked and does not answer.
    """
    var = settings.paths.var
    release = latest_artifact(var, "release")
    asked = ([user], [list(items)], [list(session)])
    if triton:
        with RateClient(settings.serving) as client:
            (answer,) = client.rate(*asked)
    else:
        with LocalRater(release.path) as rater:
            (answer,) = rater.rate(*asked)
    if as_json:
        console.print_json(data=asdict(answer))
        return
    dataset = load_dataset(parent_artifact(release, var, "dataset"))
    rows = dataset.items.rows(items)
    titles = [str(dataset.titles[row]) if row >= 0 else "not in the catalogue" for row in rows]
    console.print(as_table(answer, titles, user in dataset.users))


def as_table(answer: Ratings, titles: Sequence[str], known_user: bool) -> Table:
    """Items in the order asked."""
    who = f"User {answer.user_id}" if known_user else f"{answer.user_id}, a new user"
    table = Table(box=box.SIMPLE, title=f"{who}, release {answer.release}")
    table.add_column("item", no_wrap=True)
    table.add_column("title")
    table.add_column("rating", justify="right")
    table.add_column("liked", justify="right")
    for item, title in zip(answer.items, titles, strict=True):
        table.add_row(item.item_id, title, f"{item.rating:.2f}", f"{item.like_probability:.0%}")
    return table
