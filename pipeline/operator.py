"""What an operator does through the gateway: the verbs of the loop, behind buttons."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from core.errors import PublishError
from core.settings import Settings
from pipeline.loop.journal import Decision, Journal
from pipeline.publish import publisher, status_of
from pipeline.settings_file import render
from serving.gateway.admin import Operator

ACTOR = "operator at the gateway"
TAIL_BYTES = 400
STATES = {"published": "done", "canary": "done", "refused": "refused", "skipped": "refused", "failed": "failed"}


class Retraining:
    """At most one `conch retrain` at a time, as a process of its own: it may die without taking the gateway along.

    Args:
        settings: Of the gateway; the child gets the same.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.paths.var / "loop" / "by-operator"
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._decisions_before = 0

    def start(self) -> dict[str, Any]:
        """Starts a run. Raises PublishError where one runs already."""
        with self._lock:
            if self._child is not None and self._child.poll() is None:
                raise PublishError("a retraining runs already", next_step="wait for it")
            self._folder.mkdir(parents=True, exist_ok=True)
            chosen = self._folder / "settings.toml"
            chosen.write_text(render(self._settings), encoding="utf-8")
            self._decisions_before = len(self._journal())
            with self._log.open("wb") as log:
                self._child = subprocess.Popen(
                    [str(Path(sys.executable).with_name("conch")), "retrain", "--config", str(chosen)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
            return {"run_id": str(self._child.pid)}

    def progress(self) -> dict[str, Any]:
        """The newest run, as the page shows it."""
        with self._lock:
            if self._child is None:
                return {"state": "idle", "stage": "", "message": "", "gates": []}
            if self._child.poll() is None:
                return {"state": "running", "stage": self._last_line(), "message": "", "gates": []}
            decisions = self._journal()[self._decisions_before :]
        if not decisions:
            return {"state": "failed", "stage": "", "message": self._last_line(), "gates": []}
        newest = decisions[-1]
        told = f"{newest.release or ''} {newest.reason}".strip()
        return {"state": STATES[newest.action], "stage": newest.action, "message": told, "gates": []}

    def close(self) -> None:
        """Ends a run that is under way: the live release stays."""
        with self._lock:
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()
                self._child.wait()

    @property
    def _log(self) -> Path:
        return self._folder / "retrain.log"

    def _last_line(self) -> str:
        try:
            text = self._log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace").strip()
        except OSError:
            return ""
        return text.splitlines()[-1] if text else ""

    def _journal(self) -> list[Decision]:
        return Journal(self._settings.paths.var).read()


def local_operator(settings: Settings, retraining: Retraining) -> Operator:
    """The verbs on ``paths.var`` of this machine."""

    def rollback() -> dict[str, Any]:
        outcome = publisher(settings, ACTOR).rollback(reason="asked at the gateway")
        return {"stable": outcome.after.stable, "epoch": outcome.after.epoch}

    return Operator(retraining.start, retraining.progress, rollback, lambda: status_of(settings))
