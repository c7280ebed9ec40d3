"""One fit of the posterior as a rating model whose combiner is still untaught."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from core.dataset import Dataset, Events
from core.sections import RatingSettings
from training.ratings.model import PRIOR_EVENTS, RatingFacts, RatingModel
from training.ratings.posterior import Moments, Posterior, Prior, fit_posterior
from training.ratings.scale import Scale
from training.ratings.side import (
    ACTIVITY_COLUMNS,
    Activity,
    code_count,
    code_offsets,
    directions,
    side_columns,
    spectral_part,
)


def build_model(
    dataset: Dataset, events: Events, scale: Scale, settings: RatingSettings, rng: np.random.Generator
) -> RatingModel:
    """Fits users and items on ``events`` and lays the result out as the served module.

    Args:
        dataset: Catalogue and attributes.
        events: What the model may know; those with a standardised value of 0 count as taken up, without a value.
        scale: Of the values.
        settings: The section ``rating``.
        rng: Decides the start of the posterior.
    """
    shape = (dataset.n_users, dataset.n_items)
    pattern = sparse.csr_matrix((np.ones(len(events)), (events.user_rows, events.item_rows)), shape=shape)
    user_counts, item_counts = (np.bincount(rows, minlength=n) for rows, n in _sides(events, shape))
    size = settings.implicit_dimension
    found = directions(pattern, size, rng)
    user_activity, item_activity = Activity.of_counts(user_counts), Activity.of_counts(item_counts)
    user_spectral, spectral_mean = spectral_part(user_counts, pattern @ found.items)
    item_spectral, _ = spectral_part(item_counts, pattern.T @ found.users)
    valued = events.where(events.values != 0)
    posterior = fit_posterior(
        valued.user_rows,
        valued.item_rows,
        valued.values.astype(np.float64),
        side_columns(dataset.user_features, user_counts, user_activity, user_spectral),
        side_columns(dataset.item_features, item_counts, item_activity, item_spectral),
        dimension=settings.dimension,
        iterations=settings.iterations,
        ridge=settings.ridge,
        rng=rng,
    )
    dense, codes = _split(posterior.user_prior, size)
    items, variance = _with_unknown(posterior, item_activity)
    tables = {
        "item_features": items.features,
        "item_bias": items.mean[:, 0],
        "item_variance": variance,
        "item_directions": np.vstack([found.items, np.zeros((1, size))]),
        "item_statistics": item_statistics(valued, item_counts, item_activity, scale),
        "user_codes": codes,
        "user_dense": dense,
        "spectral_mean": spectral_mean,
        "user_precision": posterior.user_prior.precision,
    }
    width = max(1, dataset.user_features.width)
    offsets = np.zeros(width, dtype=np.int64)
    offsets[: dataset.user_features.width] = code_offsets(dataset.user_features)
    assert len(codes) == max(1, code_count(dataset.user_features))
    facts = RatingFacts(
        **scale.as_facts(),
        mean=posterior.mean,
        noise_precision=posterior.noise_precision,
        activity=(user_activity.mean, user_activity.scale, user_activity.least, user_activity.most),
        hidden=settings.hidden,
    )
    tensors = {name: torch.from_numpy(table.astype(np.float32)) for name, table in tables.items()}
    return RatingModel(tensors | {"code_offsets": torch.from_numpy(offsets)}, facts).eval()


def item_statistics(valued: Events, counts: np.ndarray, activity: Activity, scale: Scale) -> np.ndarray:
    """Activity, mean, deviation, liked share of each item, ``(I + 1, 4)``, shrunk; last row an unknown item."""
    n_items = len(counts)
    sums = lambda weights: np.append(  # noqa: E731
        np.bincount(valued.item_rows, weights=weights, minlength=n_items), 0.0
    )
    values = valued.values.astype(np.float64)
    count = sums(np.ones(len(values))) + PRIOR_EVENTS
    mean = sums(values) / count
    square = (sums(values**2) + PRIOR_EVENTS) / count
    liked = (sums(scale.is_liked(values).astype(np.float64)) + PRIOR_EVENTS * scale.liked_share) / count
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-6))
    return np.column_stack([activity(np.append(counts, 0)), mean, deviation, liked])


def _sides(events: Events, shape: tuple[int, int]) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
    return (events.user_rows, shape[0]), (events.item_rows, shape[1])


def _split(prior: Prior, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the dense columns and of the attribute codes; one row of zeros where there are no codes."""
    dense, codes = np.split(prior.coefficients, [ACTIVITY_COLUMNS + size])
    return dense, codes if len(codes) else np.zeros((1, dense.shape[1]))


def _with_unknown(posterior: Posterior, activity: Activity) -> tuple[Moments, np.ndarray]:
    """Items with row I appended, what is expected of an item of which nothing is known; and all their variances."""
    prior, least = posterior.item_prior, activity.least
    expected = np.array([1.0, least, least**2]) @ prior.coefficients[:ACTIVITY_COLUMNS]
    items = Moments(np.vstack([posterior.items.mean, expected]), posterior.items.covariance)
    variance = np.vstack([np.einsum("nii->ni", posterior.items.covariance), 1 / prior.precision])
    return items, variance
