"""Prometheus metrics of the gateway, in a registry of their own, and what users make of each release."""

from __future__ import annotations

from collections import Counter as Tally
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from core.intervals import wilson

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
DWELL_BUCKETS = (1, 3, 10, 30, 100, 300)
REMEMBERED = 100_000
WANTED = ("click", "like", "purchase")


class Metrics:
    """All metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: Any = {"registry": self.registry}
        self.requests = Counter("conch_requests", "Requests by route and status.", ["route", "status"], **made)
        self.seconds = Histogram("conch_request_seconds", "Time of a request.", ["route"], buckets=BUCKETS, **made)
        self.stages = Histogram("conch_stage_seconds", "Time of a stage.", ["stage"], buckets=BUCKETS, **made)
        self.answers = Counter("conch_answers", "Slates.", ["release", "arm", "degraded"], **made)
        self.faults = Counter("conch_triton_faults", "Triton did not answer.", ["kind"], **made)
        self.breaker = Gauge("conch_breaker_open", "1 while every Triton is left alone.", **made)
        self.inside = Gauge("conch_requests_in_triton", "Requests inside Triton.", **made)
        self.waiting = Gauge("conch_requests_waiting", "Requests that wait for a place.", **made)
        self.shed = Counter("conch_shed", "Requests turned away, by what they got.", ["answer"], **made)
        for answer in ("popularity", "503"):
            self.shed.labels(answer)  # there before the first, so that a rate sees it
        self.ready = Gauge("conch_ready", "1 while a probe gets answers.", **made)
        self.replica_ready = Gauge("conch_replica_ready", "1 while its probe gets answers.", ["replica"], **made)
        self.heals = Counter("conch_heals", "Dead python steps loaded again, by outcome.", ["outcome"], **made)
        self.restarts = Counter("conch_triton_restarts", "Restarts of Triton that the probe asked for.", **made)
        self.impressions = Counter("conch_impressions", "Impressions by fate.", ["fate"], **made)
        self.impressions_waiting = Gauge("conch_impressions_waiting", "Impressions not stored yet.", **made)
        self.events = Counter("conch_events", "Events by type and fate.", ["type", "fate"], **made)
        self.history_misses = Counter("conch_history_misses", "Answers without the newest events.", **made)
        self.shadows = Counter("conch_shadow", "Copies for the shadow release, by fate.", ["fate"], **made)
        self.feedback = Counter("conch_feedback", "Events about slates.", ["release", "arm", "type"], **made)
        self.dwell = Histogram(
            "conch_dwell_seconds", "Dwell on shown items.", ["release", "arm"], buckets=DWELL_BUCKETS, **made
        )
        self.items = Gauge("conch_items_shown", "Different items shown since the start.", ["release", "arm"], **made)
        self.online = Online()

    def page(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True)
class Shown:
    """Whose slate a request got."""

    release: str
    arm: str
    items: frozenset[str]


class Online:
    """Clicks, likes and skips per release and arm since the gateway started, attributed through its own memory.

    What a client says about release or arm does not count.
    """

    def __init__(self) -> None:
        self._shown: OrderedDict[str, Shown] = OrderedDict()
        self._slates: Tally[tuple[str, str]] = Tally()
        self._places: Tally[tuple[str, str]] = Tally()
        self._events: Tally[tuple[str, str, str]] = Tally()
        self._answered: Tally[tuple[str, str]] = Tally()
        self._dwell_ms: Tally[tuple[str, str]] = Tally()
        self._distinct: dict[tuple[str, str], set[str]] = {}
        self._clicked: OrderedDict[str, None] = OrderedDict()

    def answered(self, request_id: str, shown: Shown) -> int:
        """A slate left; gives back how many different items its release and arm have shown."""
        arm = (shown.release, shown.arm)
        self._shown[request_id] = shown
        if len(self._shown) > REMEMBERED:
            self._shown.popitem(last=False)
        self._slates[arm] += 1
        self._places[arm] += len(shown.items)
        distinct = self._distinct.setdefault(arm, set())
        distinct.update(shown.items)
        return len(distinct)

    def happened(
        self, request_id: str | None, item: str | None, type_: str, dwell_ms: int | None = None
    ) -> Shown | None:
        """A stored event; gives back the slate that it is about."""
        shown = self._shown.get(request_id or "")
        if shown is None or item not in shown.items:
            return None
        arm = (shown.release, shown.arm)
        self._events[*arm, type_] += 1
        self._dwell_ms[arm] += dwell_ms or 0
        if type_ in WANTED and request_id not in self._clicked:
            self._clicked[str(request_id)] = None
            if len(self._clicked) > REMEMBERED:
                self._clicked.popitem(last=False)
            self._answered[arm] += 1
        return shown

    def table(self) -> list[dict[str, Any]]:
        """One row per release and arm, with 95 % Wilson intervals of the share of slates that were answered."""
        rows = []
        total = sum(self._slates.values())
        for arm, slates in sorted(self._slates.items()):
            release, name = arm
            low, high = wilson(self._answered[arm], slates)
            counts = {kind: self._events[release, name, kind] for kind in ("click", "like", "dislike", "skip", "dwell")}
            rows.append(
                {
                    "release": release, "arm": name, "slates": slates, "share": slates / total,
                    "events": counts, "success_rate": self._answered[arm] / slates,
                    "success_low": low, "success_high": high,
                    "like_rate": counts["like"] / max(1, self._places[arm]),
                    "skip_rate": counts["skip"] / max(1, self._places[arm]),
                    "mean_dwell_ms": self._dwell_ms[arm] / counts["dwell"] if counts["dwell"] else None,
                    "distinct_items": len(self._distinct[arm]),
                }
            )  # fmt: skip
        return rows
