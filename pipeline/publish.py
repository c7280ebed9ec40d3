"""What the publishing verbs do: find a release, change what is live, and tell people what happened."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.artifacts import Artifact, load_artifact
from core.errors import PublishError
from core.progress import Progress
from core.rollout import next_stage
from core.settings import Settings
from serving import audit
from serving.control import Control, running_replicas
from serving.ledger import read_journal, read_ledger
from serving.pointer import pointer_file, read_pointer
from serving.publish import Outcome, Publisher
from serving.release import read_release


def publisher(settings: Settings, actor: str = "") -> Publisher:
    """The publisher of ``paths.var`` and of the servers that run on it; the actor is the user by default."""
    return Publisher(settings.paths.var, actor or f"{getpass.getuser()} by hand")


def find_release(var: Path, release_id: str | None) -> Artifact:
    """A release artefact by id; the newest when None.

    Raises:
        PublishError: No such release.
    """
    runs = [load_artifact(path.parent) for path in sorted((var / "artifacts" / "release").glob("[0-9]*/manifest.json"))]
    by_id = {read_release(run.path).release_id: run for run in runs}
    name = release_id or next(reversed(by_id), None)
    if name is None or name not in by_id:
        raise PublishError(
            "no such release", where=str(var / "artifacts" / "release"), expected=release_id,
            found=", ".join(by_id) or "none", next_step="conch release",
        )  # fmt: skip
    return by_id[name]


def install_first(settings: Settings, release: Artifact, progress: Progress) -> None:
    """What `conch release` does with what it made: live at once while no gate is in force, else only on offer."""
    var = settings.paths.var
    release_id = read_release(release.path).release_id
    if read_ledger(var).gated:
        progress.say(
            f"release: {release_id} is not live: it needs the gate's blessing, then `conch activate {release_id}`"
        )
        return
    outcome = publisher(settings, "conch release").activate(
        release.path, reason="made by hand, no gate in force yet", unblessed=True
    )
    tell(outcome, progress)


def tell(outcome: Outcome, progress: Progress) -> None:
    """Says what a change did."""
    before, after = outcome.before, outcome.after
    parts = [f"{after.stable} is live" + (f" (before: {before.stable})" if before else "")]
    if after.canary is not None:
        parts.append(f"canary {after.canary} answers {after.weight:.2%} of the users")
    if after.shadow is not None:
        parts.append(f"shadow {after.shadow}")
    progress.say(f"publish: {', '.join(parts)}; epoch {after.epoch}, {outcome.durations_ms['all']:,.0f} ms")
    for complaint in outcome.complaints:
        progress.say(f"publish: {complaint}; it follows at its next start")


def next_weight(settings: Settings) -> float:
    """The stage after the canary's. Raises PublishError where there is no canary."""
    pointer = read_pointer(pointer_file(settings.paths.var))
    if pointer is None or pointer.canary is None:
        raise PublishError("there is no canary", next_step="conch canary start RELEASE")
    return next_stage(pointer.weight)


def status_of(settings: Settings) -> dict[str, Any]:
    """Pointer, ledger, open journal, servers and the state of the audit log, as plain values."""
    var = settings.paths.var
    pointer, journal = read_pointer(pointer_file(var)), read_journal(var)
    return {
        "pointer": pointer.model_dump() if pointer else None,
        "ledger": read_ledger(var).model_dump(),
        "half_way": journal.model_dump() if journal else None,
        "servers": list(_servers(var, pointer.stable if pointer else None)),
        "audit": asdict(audit.verify(audit.audit_file(var))),
    }


def show_status(found: dict[str, Any], progress: Progress) -> None:
    """Tells people what ``status_of`` found."""
    pointer, ledger = found["pointer"], found["ledger"]
    if pointer is None:
        progress.say("live      nothing yet: conch release")
    else:
        progress.say(f"live      {pointer['stable']}, epoch {pointer['epoch']}")
        if pointer["canary"]:
            progress.say(f"canary    {pointer['canary']} answers {pointer['weight']:.2%} of the users")
        if pointer["shadow"]:
            progress.say(f"shadow    {pointer['shadow']}")
    progress.say(f"kept      {', '.join(ledger['kept']) or 'none'}")
    for name, reason in ledger["blocked"].items():
        progress.say(f"blocked   {name}: {reason}")
    progress.say(f"gate      {'in force' if ledger['gated'] else 'not in force: `conch release` goes live at once'}")
    if found["half_way"]:
        half = found["half_way"]
        progress.say(
            f"half-way  {half['action']} {half['release_id']} at step {half['step']}: any publish verb settles it"
        )
    for server in found["servers"]:
        progress.say(f"server    {server['address']}: {server['state']}, loaded {', '.join(server['loaded'])}")
    bad = found["audit"]["bad_line"]
    progress.say(f"audit     {found['audit']['lines']} good lines" + (f", line {bad} is bad" if bad else ""))


def verify_audit(settings: Settings, progress: Progress) -> None:
    """Checks the audit log. Raises PublishError that names the first bad line."""
    path = audit.audit_file(settings.paths.var)
    verdict = audit.verify(path)
    if verdict.bad_line is not None:
        raise PublishError(f"audit line {verdict.bad_line} {verdict.complaint}", where=f"{path}:{verdict.bad_line}")
    progress.say(f"audit: {verdict.lines} lines, each follows from the one before; head {verdict.head}")


def _servers(var: Path, stable: str | None) -> Iterator[dict[str, Any]]:
    for replica in running_replicas(var):
        if replica.address is None:
            continue
        try:
            with Control(replica) as control:
                loaded = sorted(name for name, versions in control.states().items() if "READY" in versions.values())
        except PublishError as error:
            yield {"address": replica.address, "state": error.what, "loaded": []}
            continue
        releases = [name.partition("recommend.")[2] for name in loaded if name.startswith("recommend.")]
        state = "serves the live release" if stable in releases else "does not serve the live release"
        yield {"address": replica.address, "state": state, "loaded": releases}
