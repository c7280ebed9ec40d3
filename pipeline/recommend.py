"""`conch recommend`: one user for people, many users for programs."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.errors import RequestError
from core.settings import Settings
from pipeline.console import Terminal
from serving.client import ConchClient, Recommendation
from serving.local import PIPELINE, LocalPipeline

SHOWN_HISTORY = 8


@dataclass(frozen=True)
class Ask:
    """What to recommend.

    Attributes:
        k: Items per user.
        stage: pipeline, popularity, or a recall source.
        session: Newest items, oldest first.
        exclude: Items that must not come back.
        triton: Ask the running server instead of the graphs in process.
        diversity: 0 by score alone to 1 by variety alone; None takes the release's default.
        attributes: Values by attribute name, in place of what the release knows of the users.
    """

    k: int
    stage: str
    session: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    triton: bool = False
    diversity: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def read_attributes(given: Sequence[str]) -> dict[str, str]:
    """``name=value`` each. Raises RequestError for anything else."""
    for text in given:
        if not text.partition("=")[0] or "=" not in text:
            raise RequestError("not an attribute", where="--attribute", expected="name=value", found=text)
    return dict(text.split("=", 1) for text in given)


def recommend_one(settings: Settings, user: str, ask: Ask, console: Console) -> None:
    """Shows one user's history, recommendations and reasons."""
    var = settings.paths.var
    release = latest_artifact(var, "release")
    dataset = load_dataset(parent_artifact(release, var, "dataset"))
    with _answerer(settings, ask, release.path) as source:
        answer = _ask(source, [user], ask)[0]
    show(console, dataset, answer, tuple(release.manifest.tensors["fit"]))


def recommend_many(settings: Settings, users_file: Path, out: Path | None, ask: Ask, terminal: Terminal) -> None:
    """Writes user_id,item_id,rank,score for every user of a file; users without an answer have no rows.

    Raises:
        RequestError: A users file that is missing or empty, or an unknown stage.
    """
    user_ids = read_users(users_file)
    release = latest_artifact(settings.paths.var, "release")
    started = time.perf_counter()
    target = out or Path("recommendations.csv")
    with _answerer(settings, ask, release.path) as source:
        answers = _ask(source, user_ids, ask)
    temporary = target.with_name(f".{target.name}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("user_id", "item_id", "rank", "score"))
        for answer in answers:
            writer.writerows((answer.user_id, item.item_id, item.rank, f"{item.score:.6g}") for item in answer.items)
    temporary.replace(target)
    seconds = time.perf_counter() - started
    terminal.say(
        f"recommend: {len(user_ids):,} users by {ask.stage}, {seconds:.1f} s "
        f"({len(user_ids) / seconds:,.0f} users/s), wrote {target}"
    )


def read_users(file: Path) -> list[str]:
    """User ids of a file: one a line, or the user_id column of a CSV; repeats are dropped, order is kept."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except FileNotFoundError:
        raise RequestError("users file not found", where=str(file)) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError("users file is not text", where=str(file), found=str(error)) from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    at = header.index("user_id") if "user_id" in header else 0
    found = dict.fromkeys(row[at] for row in rows[1 if "user_id" in header else 0 :] if len(row) > at and row[at])
    if not found:
        raise RequestError("no user ids", where=str(file), expected="one id a line, or CSV with a user_id column")
    return list(found)


def show(console: Console, dataset: Dataset, answer: Recommendation, fit: tuple[str, ...]) -> None:
    """Prints one answer as a table with titles and reasons."""
    title = lambda item_id: str(dataset.titles[row]) if (row := dataset.items.row(item_id)) is not None else item_id  # noqa: E731
    row = dataset.users.row(answer.user_id)
    if row is None:
        console.print(f"[bold]User {answer.user_id}[/bold]: not known, popular items and the session decide")
    else:
        past = dataset.histories(fit).of(row)
        newest = "; ".join(str(dataset.titles[item]) for item in past.item_rows[:SHOWN_HISTORY])
        console.print(f"[bold]User {answer.user_id}[/bold], {len(past)} past items, newest first: {newest}")
    table = Table(box=None, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("recommended", style="bold", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("because of", overflow="fold")
    for item in answer.items:
        reasons = "; ".join(f"{title(reason.item_id)} ({reason.share:.0%})" for reason in item.reasons)
        table.add_row(str(item.rank), title(item.item_id), f"{item.score:.2f}", reasons or "popular")
    console.print(table)
    console.print(f"release {answer.release}, {answer.latency_ms:.1f} ms\n")


def _answerer(settings: Settings, ask: Ask, release: Path) -> LocalPipeline | ConchClient:
    if not ask.triton:
        return LocalPipeline(release, threads=settings.serving.local_threads)
    if ask.stage != PIPELINE:
        raise RequestError(
            f"Triton serves the whole pipeline, not {ask.stage} alone",
            where="--stage",
            expected="--stage pipeline with --triton",
            next_step="leave --triton out",
        )
    return ConchClient(settings.serving)


def _ask(source: LocalPipeline | ConchClient, users: list[str], ask: Ask) -> list[Recommendation]:
    session = [list(ask.session)] * len(users) if ask.session else None
    exclude = [list(ask.exclude)] * len(users) if ask.exclude else None
    asked: dict[str, Any] = {
        "k": ask.k,
        "session_items": session,
        "exclude": exclude,
        "diversity": ask.diversity,
        "attributes": [ask.attributes] * len(users) if ask.attributes else None,
    }
    if isinstance(source, ConchClient):
        return source.recommend(users, **asked)
    return source.recommend(users, **asked, stage=ask.stage)
