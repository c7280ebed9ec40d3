"""What an operator may do through the gateway. The pipeline passes the doing in; the gateway knows nothing about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Status = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Operator:
    """The operator's verbs; None is not wired, and answers 501. Each may block: they run in threads.

    Attributes:
        retrain: Starts a retraining and returns at once: ``{"run_id": …}``.
        progress: The newest run, for the page: ``{"state": "idle" | "running" | "done" | "refused" | "failed",
            "stage": str, "message": str, "gates": [{"name", "passed", "detail"}]}``.
        rollback: Goes back to the release before; returns what is live now.
        status: Pointer, loaded releases, anything else worth showing.
    """

    retrain: Status | None = None
    progress: Status | None = None
    rollback: Status | None = None
    status: Status | None = None

    def wired(self) -> dict[str, bool]:
        """Which verbs there are."""
        return {name: getattr(self, name) is not None for name in ("retrain", "progress", "rollback", "status")}
