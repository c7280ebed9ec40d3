"""Users held out whole: their first events as a session, or their attributes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.cold_items import FIT, fit
from bench.cold_split import HELD_OUT, Asked, Values, judge, model_scores
from core.dataset import Dataset, Events, histories_of
from core.metrics import truth_of
from core.settings import Settings
from core.tensors import MASKED
from training.content.newcomers import fit_newcomers
from training.models.recall_base import RecallModel

SESSIONS = (1, 3, 5)
Found = dict[str, Values]


def strangers(dataset: Dataset, settings: Settings, names: tuple[str, ...], seed: int) -> tuple[Found, dict[str, Any]]:
    """NDCG@10 and recall@10 of users whose events no model sees, over the whole catalogue.

    The truth is what a user did after the first five events, the same for every number of events shown.
    """
    rng = np.random.default_rng(seed)
    users = np.sort(rng.choice(dataset.n_users, int(HELD_OUT * dataset.n_users), replace=False))
    everything = dataset.events
    is_held = np.isin(everything.user_rows, users)
    fitted = everything.of_splits(FIT)
    fitted = fitted.where(~np.isin(fitted.user_rows, users))
    own = everything.where(is_held)
    order = np.lexsort((own.timestamps, own.user_rows))
    own = own.where(order)
    rank = np.arange(len(own)) - np.searchsorted(own.user_rows, own.user_rows)
    later = own.where(rank >= max(SESSIONS))
    asked_users, index = np.unique(later.user_rows, return_inverse=True)
    question = Asked(asked_users, truth_of(index, later.item_rows, len(asked_users)), np.arange(dataset.n_items))
    shown = own.where((rank < max(SESSIONS)) & np.isin(own.user_rows, asked_users))
    first = rank[(rank < max(SESSIONS)) & np.isin(own.user_rows, asked_users)]
    found: Found = {}
    facts: dict[str, Any] = {}
    for name in names:
        model = fit(name, dataset, fitted, settings, seed)
        newcomers = fit_newcomers(model, dataset, fitted, settings.content, seed=seed)
        facts[name] = newcomers.metrics
        found["0 events, popularity"] = judge(_without_history(model, dataset, question, shown), question)
        found[f"{name}, 0 events, attributes"] = judge(
            _without_history(newcomers.model, dataset, question, shown), question
        )
        for count in SESSIONS:
            session = shown.where(first < count)
            histories = histories_of(session, dataset.n_users).select(question.users)
            scores = model_scores(model, histories, question.candidates)
            found[f"{name}, {count} events"] = judge(_masked(scores, shown, question), question)
    return found, facts


def _without_history(model: RecallModel, dataset: Dataset, question: Asked, shown: Events) -> np.ndarray:
    scores = model.empty_bias[:-1].repeat(len(question.users), 1)
    if model.newcomers is not None:
        codes = torch.from_numpy(dataset.user_features.codes[question.users].astype(np.int64))
        scores = scores + model.newcomers(codes) @ model.item_vectors[:-1].T
    return _masked(scores.numpy().copy(), shown, question)


def _masked(scores: np.ndarray, shown: Events, question: Asked) -> np.ndarray:
    """The first five events are no truth, so they must not take places either."""
    scores[np.searchsorted(question.users, shown.user_rows), shown.item_rows] = MASKED
    return scores
