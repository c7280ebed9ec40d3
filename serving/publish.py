"""Takes a release live on a running Triton and back, so that every answer is of one release and none fails.

The order: check, place beside, load beside, ask, flip the pointer, flip the aliases, retire. Until the pointer flips
the old release is live; from then on the new one is. A publisher that died is settled by the next one, or by the next
start of the server (``serving.live``): both make everything agree with the pointer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.artifacts import replace_file
from core.errors import ConchError, PublishError
from serving import audit
from serving.adopt import adopt
from serving.control import Replica, running_replicas
from serving.fleet import Fleet
from serving.golden import read_golden
from serving.lease import Lease, acquire, lease_file
from serving.ledger import Journal, Ledger, journal_file, ledger_file, read_ledger, write_record
from serving.pointer import Pointer, pointer_file, read_pointer, replace_pointer
from serving.preflight import check_release, check_space
from serving.release import REPOSITORY, ReleaseInfo

AfterStep = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a change did.

    Attributes:
        before: The pointer before; None before the first release.
        after: The pointer now.
        durations_ms: Time per step.
        complaints: Replicas that did not follow in everything; their next start does.
    """

    before: Pointer | None
    after: Pointer
    durations_ms: dict[str, float]
    complaints: tuple[str, ...] = ()


@dataclass
class _Change:
    """One change under way."""

    lease: Lease
    fleet: Fleet
    action: str
    release_id: str
    before: Pointer | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    durations_ms: dict[str, float] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


class Publisher:
    """Changes what is live, one change at a time.

    Args:
        var: ``paths.var``.
        actor: Who asks, for the audit log.
        replicas: The servers; those that run on the live repository when None.
        after: Called with the name of each step when it has been journalled.
        now: Wall clock.
    """

    def __init__(
        self,
        var: Path,
        actor: str,
        replicas: list[Replica] | None = None,
        *,
        after: AfterStep = lambda step: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._var = var
        self._actor = actor
        self._replicas = replicas
        self._after = after
        self._now = now

    def activate(self, release: Path, *, reason: str, unblessed: bool = False) -> Outcome:
        """Makes a release the live one for everybody.

        Args:
            release: Folder of the release artefact.
            reason: Why, for the audit log.
            unblessed: An operator answers for it: no blessing is asked for, and a block is lifted.

        Raises:
            BlessingError: No valid blessing.
            ReleaseError: It must not go live; the release before still serves.
        """
        info, digest = self._checked(release, unblessed)
        with self._change("activate", info.release_id, reason, digest, unblessed) as change:
            self._prepare(change, release, info)
            self._promote(change, info.release_id)
            self._remember(lambda ledger: _unblocked(ledger.with_live(info.release_id), info, gated=not unblessed))
            self._settle(change)
        return self._outcome(change)

    def start_canary(
        self, release: Path, *, weight: float, reason: str, unblessed: bool = False, shadow: bool = False
    ) -> Outcome:
        """Loads a release beside the live one and lets it answer a share of the users, or get copies alone.

        Args:
            release: Folder of the release artefact.
            weight: Share of users.
            reason: For the audit log.
            unblessed: See ``activate``.
            shadow: Copies of requests instead of users.

        Raises:
            ReleaseError: See ``activate``; also where another canary is under way.
        """
        info, digest = self._checked(release, unblessed)
        action = "shadow start" if shadow else "canary start"
        with self._change(action, info.release_id, reason, digest, unblessed) as change:
            before = self._live(change)
            if info.release_id == before.stable or (before.canary not in (None, info.release_id) and not shadow):
                raise PublishError(
                    "no canary can start", where=str(pointer_file(self._var)), found=before.model_dump_json(),
                    expected="a release that is not live, and no other canary",
                )  # fmt: skip
            self._prepare(change, release, info)
            update: dict[str, Any] = {"shadow": info.release_id}
            if not shadow:
                update = {"canary": info.release_id, "weight": weight, "salt": secrets.token_hex(4), "shadow": None}
            self._point(change, update)
        return self._outcome(change)

    def move_canary(self, weight: float, *, reason: str, seen: Pointer | None = None) -> Outcome:
        """Gives the canary another share of the users, the same users first; at 1 it becomes the live release.

        Args:
            weight: Share of users.
            reason: For the audit log.
            seen: The pointer that this was decided on; the one of now when None.

        Raises:
            PublishError: There is no canary, or the pointer is no longer the one that was seen.
        """
        seen = seen or self._pointer()
        if seen.canary is None:
            raise PublishError("there is no canary", where=str(pointer_file(self._var)), next_step="conch canary start")
        canary = seen.canary
        with self._change("canary advance", canary, reason) as change:
            self._require(change.before == seen, seen, change.before)
            if weight < 1:
                self._point(change, {"weight": weight})
            else:
                self._promote(change, canary)
                self._remember(lambda ledger: ledger.with_live(canary).model_copy(update={"gated": ledger.gated}))
                self._settle(change)
        return self._outcome(change)

    def abort_canary(self, *, reason: str, seen: Pointer | None = None) -> Outcome:
        """Takes the canary (and a shadow) away from everybody and blocks it.

        Args:
            reason: For the audit log.
            seen: The pointer that this was decided on; the one of now when None.

        Raises:
            PublishError: There is neither, or another one by now.
        """
        seen = seen or self._pointer()
        name = seen.canary or seen.shadow
        if name is None:
            raise PublishError("there is no canary", where=str(pointer_file(self._var)))
        with self._change("canary abort", name, reason, preempt=True) as change:
            now = change.before
            self._require(now is not None and name in (now.canary, now.shadow), seen, now)
            self._point(change, {"canary": None, "weight": 0.0, "salt": "", "shadow": None})
            self._remember(lambda ledger: ledger.with_blocked(name, reason))
        return self._outcome(change)

    def rollback(self, *, reason: str, to: str | None = None) -> Outcome:
        """Goes back to a release that is still loaded, from what lies on this machine alone, and blocks the bad one.

        A publisher at work is stopped. Any canary ends too.

        Args:
            reason: For the audit log.
            to: A kept release; the one before the live one when None.

        Raises:
            PublishError: There is none to go back to, or it is not loaded.
        """
        ledger, pointer = read_ledger(self._var), read_pointer(pointer_file(self._var))
        bad = pointer.stable if pointer else ""
        kept = [name for name in ledger.kept if name != bad]
        target = to if to is not None else next(iter(kept), None)
        if target is None or target not in kept:
            raise PublishError(
                "there is no such release to go back to", where=str(ledger_file(self._var)), found=", ".join(kept),
                expected=to, next_step="conch activate RELEASE",
            )  # fmt: skip
        with self._change("rollback", target, reason, preempt=True, settle=False) as change:
            change.fleet.require_loaded(target)
            self._promote(change, target)
            self._remember(lambda ledger: ledger.with_blocked(bad, reason).with_live(target))
        return self._outcome(change)

    def settle(self) -> Outcome | None:
        """Finishes or undoes what a crash left half-way; None where nothing was ever published."""
        if read_pointer(pointer_file(self._var)) is None:
            return None
        with self._change("settle", "", "settle after a crash", silent=True) as change:
            pass
        return self._outcome(change)

    def _checked(self, release: Path, unblessed: bool) -> tuple[ReleaseInfo, str]:
        info, digest = check_release(release, blessed_in=None if unblessed else self._var, now=self._now())
        blocked = read_ledger(self._var).blocked.get(info.release_id)
        if blocked is not None and not unblessed:
            raise PublishError(
                f"{info.release_id} is blocked", where=str(ledger_file(self._var)), found=blocked,
                next_step="make a better release; an operator can lift it with --unblessed --reason",
            )  # fmt: skip
        return info, digest

    @contextmanager
    def _change(
        self, action: str, release_id: str, reason: str, digest: str = "", unblessed: bool = False,
        *, preempt: bool = False, settle: bool = True, silent: bool = False,
    ) -> Iterator[_Change]:  # fmt: skip
        """Takes the lease, settles what was left, runs the block, and writes the audit record."""
        lease = acquire(lease_file(self._var), f"{self._actor}: {action} {release_id}".strip(), preempt=preempt)
        replicas = self._replicas if self._replicas is not None else running_replicas(self._var)
        inputs: dict[str, Any] = {"release": release_id}
        if digest:
            inputs |= {"manifest_sha256": digest, "unblessed": unblessed}
        change = _Change(lease, Fleet(replicas, lambda step: self._step(change, step)), action, release_id)
        change.inputs = inputs
        failure: BaseException | None = None
        started = time.perf_counter()
        try:
            if read_pointer(pointer_file(self._var)) is None:
                adopt(self._var, change.fleet.repositories)
            change.before = read_pointer(pointer_file(self._var))
            if settle:
                self._settle(change)
            self._step(change, "begin")
            yield change
        except BaseException as error:
            failure = error
            raise
        finally:
            change.durations_ms["all"] = (time.perf_counter() - started) * 1e3
            if isinstance(failure, ConchError | OSError | None) and not silent:
                self._audit(change, reason, failure)
            journal_file(self._var).unlink(missing_ok=True)
            lease.release()

    def _prepare(self, change: _Change, release: Path, info: ReleaseInfo) -> None:
        """Places and loads a release everywhere, or nowhere."""
        pointer = read_pointer(pointer_file(self._var))
        if pointer is not None and info.release_id in pointer.releases:
            return  # loaded already
        try:
            with self._timed(change, "place"):
                for repository in change.fleet.repositories:
                    check_space(release, repository)
                placements = change.fleet.place(release / REPOSITORY, info.release_id)
            with self._timed(change, "load"):
                change.fleet.load(release / REPOSITORY, placements, read_golden(release))
        except (ConchError, OSError) as error:
            with change.lease.held():  # a publisher that was taken over undoes nothing
                pass
            complaints = self._settle(change)
            raise PublishError(
                f"{info.release_id} did not go live; {pointer.stable if pointer else 'nothing'} still serves",
                where=getattr(error, "where", None), found=getattr(error, "what", str(error)),
                expected="loaded and answering on every replica",
                next_step="; ".join(complaints) or getattr(error, "next_step", None),
            ) from error  # fmt: skip

    def _promote(self, change: _Change, release_id: str) -> None:
        """The flip: the pointer in one step, then the aliases; both are back where a server refuses."""
        before = read_pointer(pointer_file(self._var))
        self._point(change, {"stable": release_id, "canary": None, "weight": 0.0, "salt": "", "shadow": None})
        try:
            with self._timed(change, "aliases"), change.lease.held():
                change.fleet.flip_aliases(release_id)
            self._step(change, "aliases flipped")
        except (ConchError, OSError):
            if before is not None:
                self._point(change, before.model_dump(exclude={"epoch"}))
            raise

    def _point(self, change: _Change, update: dict[str, Any]) -> None:
        self._step(change, "pointer")
        path = pointer_file(self._var)
        with self._timed(change, "pointer"), change.lease.held():
            pointer = read_pointer(path)
            fields = {"stable": change.release_id} if pointer is None else pointer.model_dump()
            replace_pointer(path, Pointer(**{**fields, **update, "epoch": pointer.epoch + 1 if pointer else 1}))
        self._step(change, "pointer flipped")

    def _settle(self, change: _Change) -> list[str]:
        """Makes every replica agree with pointer and ledger."""
        pointer = read_pointer(pointer_file(self._var))
        if pointer is None:
            return []
        ledger = read_ledger(self._var)
        if ledger.kept[:1] != (pointer.stable,):  # a crash between the flip and the ledger
            self._remember(lambda ledger: ledger.with_live(pointer.stable))
        with self._timed(change, "settle"):
            change.complaints = change.fleet.reconcile(
                {*pointer.releases, *read_ledger(self._var).kept}, pointer.stable
            )
        return change.complaints

    def _step(self, change: _Change, name: str) -> None:
        journal = Journal(action=change.action, release_id=change.release_id, epoch=change.lease.epoch, step=name)
        with change.lease.held():
            replace_file(journal_file(self._var), journal.model_dump_json().encode(), durable=False)
        self._after(name)

    def _remember(self, update: Callable[[Ledger], Ledger]) -> None:
        write_record(ledger_file(self._var), update(read_ledger(self._var)))

    def _pointer(self) -> Pointer:
        pointer = read_pointer(pointer_file(self._var))
        if pointer is None:
            raise PublishError("nothing is live yet", where=str(pointer_file(self._var)), next_step="conch release")
        return pointer

    def _require(self, holds: bool, seen: Pointer, found: Pointer | None) -> None:
        """What was decided on what was seen is not done to what came after it."""
        if not holds:
            raise PublishError(
                "the pointer has moved on", where=str(pointer_file(self._var)), expected=seen.model_dump_json(),
                found=found.model_dump_json() if found else "none", next_step="look at `conch status` and decide anew",
            )  # fmt: skip

    def _live(self, change: _Change) -> Pointer:
        if change.before is None:
            raise PublishError("nothing is live yet", next_step="conch activate RELEASE")
        return change.before

    def _audit(self, change: _Change, reason: str, failure: BaseException | None) -> None:
        after = read_pointer(pointer_file(self._var))
        outcome = "done" if failure is None else f"failed: {getattr(failure, 'what', failure)}"
        audit.append(
            audit.audit_file(self._var), actor=self._actor, action=change.action, reason=reason,
            inputs={**change.inputs, "outcome": outcome, "complaints": change.complaints},
            before=change.before.model_dump() if change.before else None,
            after=after.model_dump() if after else None, durations_ms=change.durations_ms, now=self._now(),
        )  # fmt: skip

    def _outcome(self, change: _Change) -> Outcome:
        after = read_pointer(pointer_file(self._var))
        if after is None:
            raise PublishError("no pointer was written", where=str(pointer_file(self._var)))
        return Outcome(change.before, after, change.durations_ms, tuple(change.complaints))

    @contextmanager
    def _timed(self, change: _Change, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - started) * 1e3
            change.durations_ms[name] = change.durations_ms.get(name, 0.0) + spent


def _unblocked(ledger: Ledger, info: ReleaseInfo, *, gated: bool) -> Ledger:
    blocked = {name: why for name, why in ledger.blocked.items() if name != info.release_id}
    return ledger.model_copy(update={"blocked": blocked, "gated": ledger.gated or gated})
