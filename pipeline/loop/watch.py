"""What the event store says about the live release: facts for the gate's first check, drift and decay for triggers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.dataset import Dataset
from feedback.labels import FeedbackLabels
from feedback.spikes import spiking_items
from pipeline.gate.data_quality import DataFacts
from pipeline.loop.triggers import Drift, largest_drift

WINDOW_LABELS = 1_000
"""Labels of one window of drift: with fewer, chance alone looks like drift."""
WINDOW_PLACES = 5_000
"""Places of one window of the click rate."""
BINS = 10


@dataclass(frozen=True)
class ClickRates:
    """Rewarded share of the live release's shown places, its first window beside its newest one.

    Attributes:
        first: Share in the first window, 0 without one.
        first_places: Places behind it.
        newest: Share in the newest window; no place is in both.
        newest_places: Places behind it.
    """

    first: float = 0.0
    first_places: int = 0
    newest: float = 0.0
    newest_places: int = 0


def store_facts(found: FeedbackLabels, quarantined: int) -> DataFacts:
    """Counts of the store; fields that labels alone tell stay 0.

    Args:
        found: All labels of the store.
        quarantined: Events that the store holds in quarantine.
    """
    counts, places = found.counts, found.places
    answered = counts.counted + counts.late + counts.not_shown + counts.taken_back
    return DataFacts(
        events=0,
        arrived=answered + quarantined,
        late=counts.late,
        quarantined=quarantined,
        shown_places=len(places),
        positive_labels=int(pc.sum(places["reward"]).as_py() or 0),
        spiking_items=len(spiking_items(found.events)),
    )


def click_rates(places: pa.Table, release: str) -> ClickRates:
    """Of final places that this release filled."""
    own = places.filter(pc.and_(pc.equal(places["release"], release), places["final"]))
    rewards = own["reward"].to_numpy()
    size = min(WINDOW_PLACES, len(rewards) // 2)
    if size == 0:
        return ClickRates()
    return ClickRates(float(rewards[:size].mean()), size, float(rewards[-size:].mean()), size)


def item_bins(dataset: Dataset) -> dict[str, int]:
    """Items by tenths of the events that the live release learned from, the most frequent first; others are new."""
    counts = np.bincount(dataset.events.item_rows, minlength=dataset.n_items)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    bins = np.minimum(BINS - 1, before * BINS // max(int(counts.sum()), 1))
    return dict(zip(dataset.items.ids[order].tolist(), bins.tolist(), strict=True))


def drifts(
    events: pa.Table, places: pa.Table, since_s: float, read_bins: Callable[[], Mapping[str, int]]
) -> list[Drift]:
    """Drift of every full window of labels after the first one, oldest first.

    The reference is the first window since ``since_s``: what the live release met when it came. Compared are which
    items are taken (by popularity, new ones apart), how many labels a user has, and the scores of what was shown
    meanwhile.

    Args:
        events: See ``core.feedback_labels.TRAINING_EVENTS``, in order of time.
        places: See ``core.feedback_labels.SHOWN_PLACES``.
        since_s: Seconds since the epoch: when the live release came.
        read_bins: See :func:`item_bins`; called only where there are windows to compare.
    """
    own = events.filter(pc.greater_equal(events["timestamp"], since_s))
    count = len(own) // WINDOW_LABELS
    if count < 2:
        return []
    bins = read_bins()
    windows = [own.slice(at * WINDOW_LABELS, WINDOW_LABELS) for at in range(count)]
    shown_s, scores = places["shown_ms"].to_numpy() / 1_000, places["score"].to_numpy()
    ends = [window["timestamp"][-1].as_py() for window in windows]
    shown = [
        scores[(shown_s >= begin) & (shown_s < end)] for begin, end in zip([since_s, *ends[:-1]], ends, strict=True)
    ]
    edges = np.quantile(shown[0], np.linspace(0, 1, BINS + 1)[1:-1]) if len(shown[0]) else np.zeros(BINS - 1)

    def histograms(window: pa.Table, its_scores: np.ndarray) -> dict[str, np.ndarray]:
        per_user = pc.value_counts(window["user_id"]).field("counts").to_numpy(zero_copy_only=False)
        found = {
            "items": np.bincount([bins.get(item, BINS) for item in window["item_id"].to_pylist()], minlength=BINS + 1),
            "labels of a user": np.bincount(np.minimum(per_user, BINS), minlength=BINS + 1),
        }
        if len(its_scores):
            found["scores"] = np.bincount(np.searchsorted(edges, its_scores), minlength=BINS)
        return found

    reference = histograms(windows[0], shown[0])
    rest = zip(windows[1:], shown[1:], strict=True)
    return [largest_drift(reference, histograms(window, its_scores)) for window, its_scores in rest]
