"""Verbs of the event store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="Look after the events of the feedback loop.")
app.add_typer(group, name="events")


@group.command()
def status(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Count events by where they are: sealed, in the inbox, in quarantine by reason."""
    from pipeline.events import open_store

    with open_store(settings_from(config, set_)) as store:
        typer.echo(json.dumps(store.counts(), indent=1))


@group.command()
def seal(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Seal what is ready, apply deletions and retention, and write the dataset down."""
    from feedback.store import store_folder
    from pipeline.events import open_store

    settings = settings_from(config, set_)
    with open_store(settings) as store:
        done = store.seal()
        snapshot = store.snapshot()
    file = snapshot.save(store_folder(settings.paths.var))
    typer.echo(
        f"sealed {done.events:,} events, {done.waiting:,} wait for their impression, {done.orphans:,} orphans, "
        f"{done.corrupt:,} damaged, {done.forgotten:,} of deleted users taken out, {done.expired:,} segments expired"
    )
    typer.echo(f"dataset {file}: {snapshot.events:,} events in {len(snapshot.segments):,} segments")


@group.command()
def labels(
    dataset: Annotated[Path, typer.Argument(help="A dataset that `conch events seal` or a retraining wrote.")],
    out: Annotated[Path, typer.Argument(help="Parquet to write; `conch retrain --labels` reads it.")],
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Make the labels of a dataset again: users by pseudonym, what they wanted."""
    from pipeline.events import labels_again

    account = labels_again(settings_from(config, set_), dataset, out)
    typer.echo(json.dumps(account, indent=1))


@group.command()
def verify(
    repair: Annotated[bool, typer.Option(help="Write damaged segments again from the inbox.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Check the inbox and every segment against its hash; exit code 1 where something is damaged."""
    from pipeline.events import open_store

    with open_store(settings_from(config, set_)) as store:
        complaints = store.verify(repair)
    for complaint in complaints:
        typer.echo(complaint)
    typer.echo("all is well" if not complaints else f"{len(complaints)} complaints")
    raise typer.Exit(1 if complaints else 0)


@group.command()
def quarantine(
    limit: Annotated[int, typer.Option(help="Rows.", min=1)] = 20,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Show the newest refused events, one JSON line each."""
    from pipeline.events import open_store

    with open_store(settings_from(config, set_)) as store:
        for kept in store.quarantined(limit):
            told = {"ingest_ms": kept.ingest_ms, "event_id": kept.key, "reason": kept.reason, "detail": kept.detail}
            typer.echo(json.dumps(told | {"times": kept.times, "body": kept.body.decode("utf-8", "replace")}))


@group.command()
def forget(
    user: Annotated[str, typer.Argument(help="External user id.")],
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Delete everything about a user, sealed segments included."""
    from pipeline.events import forget_user, open_store

    settings = settings_from(config, set_)
    with open_store(settings) as store:
        gone = forget_user(settings, store, user)
    typer.echo(f"deleted; {gone:,} events taken out of segments. Models forget with the next full `conch retrain`")


@group.command()
def ingest(
    once: Annotated[bool, typer.Option(help="End when nothing waits at the broker.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Store what gateways published to NATS (feedback.nats), and keep histories in Redis (feedback.redis)."""
    from pipeline.events import ingest as run
    from pipeline.serve import interrupt_on_sigterm

    interrupt_on_sigterm()
    settings = settings_from(config, set_)
    typer.echo(f"ingest: from {settings.feedback.nats or 'nowhere'}; Ctrl-C stops it")
    try:
        done = run(settings, typer.echo, once)
    except KeyboardInterrupt:
        done = None
    typer.echo("ingest: stopped" if done is None else f"ingest: {done:,} messages")
