"""G0: is what came in fit to learn from?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.gate.findings import Finding, GateName, within
from pipeline.gate.rules import DataRules

GATE: GateName = "G0 data"


@dataclass(frozen=True)
class DataFacts:
    """Counts of one run's new data.

    Attributes:
        events: New labels.
        usual_events: Running mean over earlier runs; None for the first one.
        arrived: Events that reached the store.
        duplicates: Of these, known before.
        late: After their window.
        quarantined: Put aside.
        not_finite: Values that are NaN or infinite.
        shown_places: Places of slates; 0 where nothing was shown.
        positive_labels: Of these, taken.
        largest_user: Labels of the user with the most.
        unknown_items: Labels of items that the live release does not know.
        spiking_items: Items flagged by the store's spike check.
    """

    events: int
    usual_events: float | None = None
    arrived: int = 0
    duplicates: int = 0
    late: int = 0
    quarantined: int = 0
    not_finite: int = 0
    shown_places: int = 0
    positive_labels: int = 0
    largest_user: int = 0
    unknown_items: int = 0
    spiking_items: int = 0


def count_labels(users: np.ndarray, items: np.ndarray, values: np.ndarray, known_items: frozenset[str]) -> DataFacts:
    """What can be counted from the labels alone: users and items ``(n,)`` of text, values float with NaN for none."""
    _, counts = np.unique(users, return_counts=True)
    return DataFacts(
        events=len(users),
        largest_user=int(counts.max(initial=0)),
        unknown_items=sum(item not in known_items for item in items.tolist()),
        not_finite=int(np.isinf(values).sum()),
    )


def check_data(facts: DataFacts, rules: DataRules) -> list[Finding]:
    """All findings of G0; shares of nothing are 0."""
    found = [within(GATE, "new labels", facts.events, rules.least_events, math.inf)]
    if facts.usual_events:
        ratio = facts.events / facts.usual_events
        found.append(within(GATE, "volume against earlier runs", ratio, rules.volume_low, rules.volume_high))
    arrived = max(facts.arrived, 1)
    found += [
        within(GATE, "duplicates", facts.duplicates / arrived, 0, rules.duplicate_share),
        within(GATE, "late events", facts.late / arrived, 0, rules.late_share),
        within(GATE, "quarantined", facts.quarantined / arrived, 0, rules.quarantine_share),
        within(GATE, "values that are not finite", facts.not_finite, 0, 0),
        within(GATE, "items that spike", facts.spiking_items, 0, 0),
    ]
    if facts.shown_places:
        rate = facts.positive_labels / facts.shown_places
        found.append(within(GATE, "label rate", rate, rules.label_rate_low, rules.label_rate_high))
    labels = max(facts.events, 1)
    found += [
        within(GATE, "labels of one user", facts.largest_user / labels, 0, rules.user_share),
        within(GATE, "labels of unknown items", facts.unknown_items / labels, 0, rules.unknown_item_share),
    ]
    return found
