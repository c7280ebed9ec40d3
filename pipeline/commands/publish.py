"""Verbs that change what is live."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from core.errors import PublishError
from pipeline.console import Terminal
from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()
ReleaseArgument = Annotated[str | None, typer.Argument(help="Release id such as r000012; the newest if not given.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the audit log.")]
UnblessedOption = Annotated[
    bool, typer.Option("--unblessed", help="You answer for it yourself: no blessing of the gate is asked for.")
]


def _answered(unblessed: bool, reason: str) -> str:
    if unblessed and not reason:
        raise PublishError("--unblessed needs a reason", next_step="--reason '…', for the audit log")
    return reason or "by hand"


@app.command()
def activate(
    release: ReleaseArgument = None,
    unblessed: UnblessedOption = False,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Make a release the live one, on running servers too: without a failed request or a mixed answer."""
    from pipeline.publish import find_release, publisher, tell

    settings, why = settings_from(config, set_), _answered(unblessed, reason)
    found = find_release(settings.paths.var, release)
    tell(publisher(settings).activate(found.path, reason=why, unblessed=unblessed), Terminal())


@app.command()
def rollback(
    to: Annotated[str | None, typer.Argument(help="A kept release; the one before if not given.")] = None,
    reason: ReasonOption = "by hand",
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Go back to a release that is still loaded; the bad one is blocked. Needs nothing but this machine."""
    from pipeline.publish import publisher, tell

    tell(publisher(settings_from(config, set_)).rollback(reason=reason, to=to), Terminal())


canary_app = typer.Typer(no_args_is_help=True, help="Let a release answer a share of the users first.")
app.add_typer(canary_app, name="canary")


@canary_app.command("start")
def canary_start(
    release: ReleaseArgument = None,
    shadow: Annotated[bool, typer.Option(help="Copies of requests only; nobody sees the answers.")] = False,
    unblessed: UnblessedOption = False,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Load a release beside the live one and give it the first share of users, 1 %."""
    from core.rollout import STAGES
    from pipeline.publish import find_release, publisher, tell

    settings, why = settings_from(config, set_), _answered(unblessed, reason)
    found = find_release(settings.paths.var, release)
    changed = publisher(settings).start_canary(
        found.path, weight=STAGES[0], reason=why, unblessed=unblessed, shadow=shadow
    )
    tell(changed, Terminal())


@canary_app.command("advance")
def canary_advance(
    weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of users; the next stage if not given.")
    ] = None,
    reason: ReasonOption = "by hand",
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Give the canary its next share: 5, 25, 50, 100 % of the users; at 100 % it is the live release."""
    from pipeline.publish import next_weight, publisher, tell

    settings = settings_from(config, set_)
    share = next_weight(settings) if weight is None else weight
    tell(publisher(settings).move_canary(share, reason=reason), Terminal())


@canary_app.command("abort")
def canary_abort(reason: ReasonOption = "by hand", config: ConfigOption = None, set_: SetOption = None) -> None:
    """Give all users back to the live release and block the canary."""
    from pipeline.publish import publisher, tell

    tell(publisher(settings_from(config, set_)).abort_canary(reason=reason), Terminal())


@canary_app.command("watch")
def canary_watch(
    act: Annotated[bool, typer.Option(help="Do what the guardrails say; otherwise only look.")] = True,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Compare the canary with the live release once: advance it, hold it, or take it back (exit code 3)."""
    from pipeline.loop.canary import look_after_canary, show_look

    found = look_after_canary(settings_from(config, set_), acts=act)
    if found is None:
        raise PublishError("there is no canary", next_step="conch canary start RELEASE")
    show_look(found, Terminal())
    if found.verdict == "rollback":
        raise typer.Exit(3)


@app.command()
def online(
    hours: Annotated[float, typer.Option(min=0, help="Slates of the last hours.")] = 24.0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """What users make of each release: click, like, skip and fall-back rates with intervals, dwell, coverage."""
    from pipeline.online import online_of, show_online

    found = online_of(settings_from(config, set_), hours)
    if json_:
        typer.echo(json.dumps(found, indent=1))
    else:
        show_online(found, Terminal())


@app.command()
def status(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Say what is live, what is kept, blocked or half-way, and what the servers have loaded."""
    from pipeline.publish import show_status, status_of

    found = status_of(settings_from(config, set_))
    if json_:
        typer.echo(json.dumps(found, indent=1, default=str))
    else:
        show_status(found, Terminal())


audit_app = typer.Typer(no_args_is_help=True, help="The log of everything that changed what is live.")
app.add_typer(audit_app, name="audit")


@audit_app.command("verify")
def audit_verify(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Check that no line of the audit log was edited, removed or inserted."""
    from pipeline.publish import verify_audit

    verify_audit(settings_from(config, set_), Terminal())
