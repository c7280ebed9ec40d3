"""`conch similar`: what is like an item, and whose taste is like a user's, with titles."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.errors import RequestError
from core.settings import Settings
from serving.client import ConchClient
from serving.local import LocalPipeline

SHOWN_ITEMS = 5
"""Past items that describe a user."""


def show_similar_items(settings: Settings, items: list[str], k: int, triton: bool, console: Console) -> None:
    """Shows the items most like the given ones together.

    Raises:
        RequestError: The dataset has none of the items, or k is out of range.
    """
    source, dataset, _ = _opened(settings, triton)
    with source:
        (answer,) = source.similar_items([items], k=k)
    if not any(item in dataset.items for item in items):
        raise RequestError("no such item", where="conch similar item", found=", ".join(items))
    asked = "; ".join(_title(dataset, item) for item in items)
    console.print(f"[bold]Like {asked}[/bold]" if answer.items else f"[bold]{asked}[/bold]: too little is known of it")
    table = Table(box=None, pad_edge=False)
    for name, justify in (("#", "right"), ("item", "left"), ("cosine", "right"), ("id", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for item in answer.items:
        table.add_row(str(item.rank), _title(dataset, item.item_id), f"{item.score:.2f}", item.item_id)
    console.print(table)
    console.print(f"release {answer.release}, {answer.latency_ms:.1f} ms\n")


def show_similar_users(
    settings: Settings, user: str, session: list[str], k: int, triton: bool, console: Console
) -> None:
    """Shows the users whose taste is nearest to one's, each with the newest items of theirs.

    Raises:
        RequestError: k is out of range.
    """
    source, dataset, fit = _opened(settings, triton)
    with source:
        (answer,) = source.similar_users([user], k=k, session_items=[session] if session else None)
    console.print(
        f"[bold]Like user {user}[/bold], {_newest(dataset, fit, user)}"
        if answer.users
        else f"[bold]User {user}[/bold]: nothing is known of them"
    )
    table = Table(box=None, pad_edge=False)
    for name, justify in (("#", "right"), ("user", "left"), ("cosine", "right"), ("newest items", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for found in answer.users:
        table.add_row(str(found.rank), found.user_id, f"{found.score:.2f}", _newest(dataset, fit, found.user_id))
    console.print(table)
    console.print(f"release {answer.release}, {answer.latency_ms:.1f} ms\n")


def _opened(settings: Settings, triton: bool) -> tuple[LocalPipeline | ConchClient, Dataset, tuple[str, ...]]:
    """Who answers, the dataset with the titles, and the splits that histories come from."""
    var = settings.paths.var
    release = latest_artifact(var, "release")
    dataset = load_dataset(parent_artifact(release, var, "dataset"))
    fit = tuple(release.manifest.tensors["fit"])
    if triton:
        return ConchClient(settings.serving), dataset, fit
    return LocalPipeline(release.path, threads=settings.serving.local_threads), dataset, fit


def _title(dataset: Dataset, item_id: str) -> str:
    row = dataset.items.row(item_id)
    return item_id if row is None else str(dataset.titles[row])


def _newest(dataset: Dataset, fit: tuple[str, ...], user_id: str) -> str:
    row = dataset.users.row(user_id)
    if row is None:
        return "not known before this session"
    return "; ".join(str(dataset.titles[item]) for item in dataset.histories(fit).of(row).item_rows[:SHOWN_ITEMS])
