"""A tower that one half of a catalogue taught, as a start for a small part of the other half."""

from __future__ import annotations

import numpy as np
import torch

from bench.cold_items import content_settings, fit
from bench.cold_split import asked, judge
from core.dataset import Dataset, Events, histories_of
from core.settings import Settings
from training.content.fit import ITEM_TABLE, fit_tower
from training.content.inputs import content_inputs
from training.content.lessons import make_lessons, user_vectors
from training.content.transfer import Start, started_tower

SMALL_USERS = 150
SMALL_ITEMS = 200


def transfer(dataset: Dataset, settings: Settings, seed: int) -> dict[str, float]:
    """NDCG@10 among unknown items of a small catalogue: a tower from nothing, and one that starts from the large half.

    Users and items are parted: the small catalogue shares neither with the large one, only attribute values and words.
    """
    rng = np.random.default_rng(seed)
    of_small = rng.random(dataset.n_items) < 0.5
    users_of_small = rng.random(dataset.n_users) < 0.5
    events = dataset.events
    large = events.where(~of_small[events.item_rows] & ~users_of_small[events.user_rows])
    other = events.where(of_small[events.item_rows] & users_of_small[events.user_rows])
    some = np.isin(other.user_rows, rng.choice(np.unique(other.user_rows), SMALL_USERS, replace=False))
    other = other.where(some)
    counts = np.bincount(other.item_rows, minlength=dataset.n_items)
    taught = np.argsort(-counts, kind="stable")[: 2 * SMALL_ITEMS]
    hidden = rng.permutation(taught)[:SMALL_ITEMS]  # half of them is never seen, and what is asked for
    small = other.where(np.isin(other.item_rows, np.setdiff1d(taught, hidden)))
    chosen = content_settings(settings, text="ngrams")
    start = _taught(dataset, large, chosen, seed)
    return {
        "from nothing": _small(dataset, other, small, hidden, chosen, seed, None),
        "from the other half": _small(dataset, other, small, hidden, chosen, seed, start),
    }


def _taught(dataset: Dataset, events: Events, settings: Settings, seed: int) -> Start:
    inputs = content_inputs(dataset, settings)
    model = fit("mf", dataset, events, settings, seed)
    lessons = make_lessons(
        model, dataset, events, least_events=settings.content.least_events, held_out_share=settings.content.held_out,
        max_users=settings.content.max_users, rng=np.random.default_rng(seed),
    )  # fmt: skip
    tower = fit_tower(lessons, inputs, settings.content, seed=seed).tower
    return Start({name: t.detach() for name, t in tower.state_dict().items()}, inputs.codebook, inputs.encoder)


def _small(
    dataset: Dataset,
    everything: Events,
    events: Events,
    hidden: np.ndarray,
    settings: Settings,
    seed: int,
    start: Start | None,
) -> float:
    inputs = content_inputs(dataset, settings, start.encoder if start else None)
    model = fit("mf", dataset, events, settings, seed)
    rng = np.random.default_rng(seed)
    content = settings.content
    lessons = make_lessons(
        model, dataset, events, least_events=1, held_out_share=content.held_out, max_users=content.max_users, rng=rng
    )
    begun = started_tower(start, inputs, lessons, content) if start else None
    easier = content.model_copy(update={"least_events": 1})
    tower = fit_tower(lessons, inputs, easier, seed=seed, start=begun).tower
    question = asked(everything, events, hidden, dataset)
    vectors = user_vectors(model, histories_of(events, dataset.n_users).select(question.users))
    with torch.no_grad():
        found = tower(inputs, torch.from_numpy(hidden))
        scores = (vectors @ found.tables[ITEM_TABLE].T + found.bias).numpy()
    return float(judge(scores, question).ndcg.mean())
