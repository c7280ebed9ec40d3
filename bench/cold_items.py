"""Items held out whole: ranked among themselves, in the whole catalogue, and with a few events."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from bench.cold_split import Asked, Values, asked, catalogue_scores, hold_out_items, judge, model_scores
from core.dataset import Dataset, Events, histories_of
from core.features import UNKNOWN
from core.progress import SILENT
from core.settings import Settings
from training.content.warm import warm_cold_items
from training.models.fitters import FITTERS
from training.models.recall_base import RecallModel

EXPOSURES = (0.0, 0.1, 0.3, 1.0)
FIT = ("train", "valid")
PerUser = dict[str, Values]


def content_settings(settings: Settings, **changes: Any) -> Settings:
    """The same settings with another [content] section."""
    return settings.model_copy(update={"content": settings.content.model_copy(update=changes)})


def fit(name: str, dataset: Dataset, events: Events, settings: Settings, seed: int) -> RecallModel:
    """One recall model, content left out."""
    return FITTERS[name](dataset, events, settings, seed=seed, progress=SILENT)


def among_cold(
    dataset: Dataset, settings: Settings, models: dict[str, RecallModel], seed: int, texts: tuple[str, ...]
) -> PerUser:
    """Held-out items ranked for the users who met them, by the towers and by simpler rules."""
    cold = hold_out_items(dataset, FIT, seed)
    question = asked(cold.hidden, cold.fitted, np.flatnonzero(cold.held), dataset)
    histories = histories_of(cold.fitted, dataset.n_users).select(question.users)
    found = baselines(dataset, cold.fitted, cold.hidden, question, seed)
    for name, model in models.items():
        for text in texts:
            chosen = content_settings(settings, text=text, exposure=1e9)
            warmed = warm_cold_items(model, dataset, cold.fitted, chosen, seed=seed).model
            found[f"{name}+{text}"] = judge(model_scores(warmed, histories, question.candidates), question)
    return found


def baselines(dataset: Dataset, fitted: Events, hidden: Events, question: Asked, seed: int) -> PerUser:
    """Chance, attribute neighbours, the popularity of like items, and the popularity that nobody could know."""
    n_users, cold = len(question.users), question.candidates
    shares = _code_matrix(dataset)
    likeness = (shares @ shares[cold].T).toarray()
    seen = sparse.csr_matrix(
        (np.ones(len(fitted)), (fitted.user_rows, fitted.item_rows)), shape=(dataset.n_users, dataset.n_items)
    )[question.users]
    counts = np.bincount(fitted.item_rows, minlength=dataset.n_items)
    nearest = likeness * (counts > 0)[:, None]
    like_popularity = (nearest**8 * counts[:, None]).sum(0) / np.maximum((nearest**8).sum(0), 1e-9)
    truth_counts = np.bincount(hidden.item_rows, minlength=dataset.n_items)[cold]
    same = lambda scores: np.broadcast_to(scores, (n_users, len(cold)))  # noqa: E731
    return {
        "random": judge(np.random.default_rng(seed).random((n_users, len(cold))), question),
        "attribute-kNN": judge(seen @ likeness, question),
        "popularity of like items": judge(same(like_popularity), question),
        "true popularity (oracle)": judge(same(truth_counts), question),
    }


def in_catalogue(dataset: Dataset, settings: Settings, models: dict[str, RecallModel], seed: int) -> dict[str, Any]:
    """Test events of warm users over the whole catalogue with a tenth of the items unknown, by exposure."""
    cold = hold_out_items(dataset, FIT, seed)
    test = dataset.events.of_splits(("test",))
    question = asked(test, cold.fitted, np.arange(dataset.n_items), dataset)
    warm_only = asked(test.where(~cold.held[test.item_rows]), cold.fitted, np.arange(dataset.n_items), dataset)
    rows: dict[str, Any] = {"truth on held-out items": round(float(cold.held[test.item_rows].mean()), 4)}
    for name, model in models.items():
        plain = catalogue_scores(model, dataset, cold.fitted, question.users)
        rows[f"{name} without content"] = _catalogue_row(plain, question, warm_only, cold.held)
        for exposure in EXPOSURES[1:]:
            chosen = content_settings(settings, exposure=exposure)
            warmed = warm_cold_items(model, dataset, cold.fitted, chosen, seed=seed).model
            scores = catalogue_scores(warmed, dataset, cold.fitted, question.users)
            rows[f"{name} exposure {exposure}"] = _catalogue_row(scores, question, warm_only, cold.held)
    return rows


def _catalogue_row(scores: np.ndarray, question: Asked, warm_only: Asked, held: np.ndarray) -> dict[str, float]:
    values = judge(scores, question)
    warm = judge(scores[np.isin(question.users, warm_only.users)], warm_only)
    return {
        "ndcg@10": float(values.ndcg.mean()),
        "ndcg@10 of warm items": float(warm.ndcg.mean()),
        "share of cold items": float(held[values.lists].mean()),
    }


def natural(dataset: Dataset, settings: Settings, names: tuple[str, ...], seed: int) -> dict[str, PerUser]:
    """Nothing held out: test events of warm users with and without content, per model and support."""
    fitted = dataset.events.of_splits(FIT)
    question = asked(dataset.events.of_splits(("test",)), fitted, np.arange(dataset.n_items), dataset)
    found: dict[str, PerUser] = {}
    for name in names:
        model = fit(name, dataset, fitted, settings, seed)
        found[name] = {"without": judge(catalogue_scores(model, dataset, fitted, question.users), question)}
        for support in (0.0, settings.content.support):
            chosen = content_settings(settings, support=support)
            warmed = warm_cold_items(model, dataset, fitted, chosen, seed=seed).model
            scores = catalogue_scores(warmed, dataset, fitted, question.users)
            found[name][f"support {support:g}"] = judge(scores, question)
    return found


def few_events(
    dataset: Dataset, settings: Settings, names: tuple[str, ...], seed: int, kept: int, supports: tuple[float, ...]
) -> dict[str, float]:
    """NDCG@10 among held-out items that keep ``kept`` events, drawn at random, by the weight of content."""
    cold = hold_out_items(dataset, FIT, seed)
    fitted = dataset.events.of_splits(FIT)
    held = fitted.where(cold.held[fitted.item_rows])
    order = np.lexsort((np.random.default_rng(seed).random(len(held)), held.item_rows))
    rank = np.empty(len(held), dtype=np.int64)
    rank[order] = np.arange(len(held)) - np.searchsorted(held.item_rows[order], held.item_rows[order])
    thinned = _joined(cold.fitted, held.where(rank < kept))
    later = held.where(rank >= kept)
    question = asked(later, thinned, np.flatnonzero(cold.held), dataset)
    histories = histories_of(thinned, dataset.n_users).select(question.users)
    found = {}
    for name in names:
        model = fit(name, dataset, thinned, settings, seed)
        for support in supports:
            chosen = content_settings(settings, support=support, exposure=1e9)
            warmed = warm_cold_items(model, dataset, thinned, chosen, seed=seed).model if support else model
            scores = model_scores(warmed, histories, question.candidates)
            found[f"{name} support {support:g}"] = float(judge(scores, question).ndcg.mean())
    return found


def _joined(one: Events, two: Events) -> Events:
    both = Events(*(np.concatenate(pair) for pair in zip(vars(one).values(), vars(two).values(), strict=True)))
    return both.where(np.argsort(both.timestamps, kind="stable"))


def _code_matrix(dataset: Dataset) -> sparse.csr_matrix:
    """Attribute codes of each item, one column per value, rows of length 1."""
    blocks, start = [], 0
    for column in dataset.item_features.columns:
        codes = dataset.item_features.codes[:, start : start + column.width]
        start += column.width
        items, slots = np.nonzero(codes != UNKNOWN)
        blocks.append(
            sparse.csr_matrix(
                (np.ones(len(items)), (items, codes[items, slots])), shape=(dataset.n_items, column.cardinality)
            )
        )
    matrix = sparse.hstack(blocks, format="csr")
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return (sparse.diags(1 / np.maximum(lengths, 1e-9)) @ matrix).tocsr()
