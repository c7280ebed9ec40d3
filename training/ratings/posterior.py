"""Bayesian matrix factorisation by variational inference (Lim and Teh 2007), with side columns in the prior.

``value = mean + b_u + b_i + x_u.y_i + noise``. Users ``[b_u, x_u]`` and items ``[b_i, y_i]`` are Gaussian around a
linear function of their side columns; their posteriors are updated in turn, then the coefficients, the precisions
and the noise. Keeping the covariances is what lets hundreds of rare items have vectors without overfitting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from core.errors import TrainingError

START_DEVIATION = 0.1
START_VARIANCE = 0.01
START_PRECISION = 4.0
"""Of biases and vectors before the first update."""


@dataclass(frozen=True)
class Moments:
    """Posterior of one side.

    Attributes:
        mean: ``(n, D + 1)``, the bias first.
        covariance: ``(n, D + 1, D + 1)``.
    """

    mean: np.ndarray
    covariance: np.ndarray

    @property
    def features(self) -> np.ndarray:
        """What the other side multiplies its vector with: ``[1, vector]``, ``(n, D + 1)``."""
        features = self.mean.copy()
        features[:, 0] = 1.0
        return features

    @property
    def feature_covariance(self) -> np.ndarray:
        """Covariance of ``features``: that of the vector, zero for the 1."""
        covariance = self.covariance.copy()
        covariance[:, 0, :] = covariance[:, :, 0] = 0.0
        return covariance

    @property
    def bias_covariance(self) -> np.ndarray:
        """Covariance of the bias with ``features``, ``(n, D + 1)``."""
        row = self.covariance[:, 0, :].copy()
        row[:, 0] = 0.0
        return row


@dataclass(frozen=True)
class Prior:
    """Gaussian prior of one side.

    Attributes:
        coefficients: ``(C, D + 1)``; the prior mean of a row is its side columns times these.
        precision: ``(D + 1,)``.
    """

    coefficients: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True)
class Posterior:
    """A fitted model.

    Attributes:
        mean: Mean of the fitted values.
        users: Posterior of the users.
        items: Posterior of the items.
        user_prior: What a user's posterior starts from.
        item_prior: What an item's posterior starts from.
        noise_precision: 1 / variance of the noise.
    """

    mean: float
    users: Moments
    items: Moments
    user_prior: Prior
    item_prior: Prior
    noise_precision: float


class _Side:
    """One side's fixed data: who met whom, side columns and their ridge solver."""

    def __init__(self, pattern: sparse.csr_matrix, values: sparse.csr_matrix, columns: sparse.csr_matrix, ridge: float):
        self.pattern, self.values = pattern, values
        self.known = np.asarray(pattern.sum(1)).ravel() > 0
        self._columns, self._fitted = columns, columns[self.known]
        gram = (self._fitted.T @ self._fitted).toarray()
        self._factor = linalg.cho_factor(gram + ridge * np.eye(gram.shape[0]))

    def __len__(self) -> int:
        return int(self.pattern.shape[0])

    def fit_prior(self, moments: Moments) -> tuple[Prior, np.ndarray]:
        """The prior that suits the rows with events, and its mean for all rows."""
        coefficients = linalg.cho_solve(self._factor, self._fitted.T @ moments.mean[self.known])
        centre = np.asarray(self._columns @ coefficients)
        squares = (moments.mean - centre)[self.known] ** 2
        spread = squares + np.einsum("nii->ni", moments.covariance)[self.known]
        return Prior(coefficients, 1 / np.maximum(spread.mean(0), 1e-6)), centre

    def update(self, other: Moments, centre: np.ndarray, precision: np.ndarray, noise: float) -> tuple[Moments, float]:
        """The posterior given the other side, and what it adds to the expected squared error."""
        features = other.features
        spread_sum = self._sum_of(other.feature_covariance)
        precision_sum = self._sum_of(features[:, :, None] * features[:, None, :]) + spread_sum
        crossed = self.pattern @ other.bias_covariance
        covariance = np.linalg.inv(noise * precision_sum + np.diag(precision))
        explained = self.values @ features - self.pattern @ (other.mean[:, :1] * features) - crossed
        mean = np.einsum("nij,nj->ni", covariance, noise * explained + centre * precision)
        moments = Moments(mean, covariance)
        # Variance of [b, x].[1, y] + b_i over both posteriors, summed over the events.
        own = moments.features
        total = (covariance * precision_sum).sum() + np.einsum("ni,nij,nj->", own, spread_sum, own)
        total += (self.pattern @ other.covariance[:, 0, 0]).sum() + 2 * (crossed * own).sum()
        return moments, float(total)

    def _sum_of(self, matrices: np.ndarray) -> np.ndarray:
        """Sums of the other side's symmetric matrices ``(m, w, w)`` over each row's events, ``(n, w, w)``."""
        width = matrices.shape[1]
        upper = np.triu_indices(width)
        place = np.zeros((width, width), dtype=np.int64)
        place[upper] = place.T[upper] = np.arange(len(upper[0]))
        summed: np.ndarray = (self.pattern @ matrices[:, upper[0], upper[1]])[:, place]
        return summed


def fit_posterior(
    user_rows: np.ndarray,
    item_rows: np.ndarray,
    values: np.ndarray,
    user_columns: sparse.csr_matrix,
    item_columns: sparse.csr_matrix,
    *,
    dimension: int,
    iterations: int,
    ridge: float,
    rng: np.random.Generator,
) -> Posterior:
    """Fits the model; deterministic for a given ``rng``.

    Args:
        user_rows: int ``(events,)``, each (user, item) pair once.
        item_rows: int ``(events,)``.
        values: Standardised values float ``(events,)``.
        user_columns: Side columns ``(U, C)``.
        item_columns: Side columns ``(I, C')``.
        dimension: D.
        iterations: Updates of both sides.
        ridge: Penalty of the squared coefficients of the side columns.
        rng: Start of the item vectors.

    Raises:
        TrainingError: A posterior that is not finite.
    """
    n_users, n_items = user_columns.shape[0], item_columns.shape[0]
    mean = float(values.mean())
    shape = (n_users, n_items)
    pattern = sparse.csr_matrix((np.ones(len(values)), (user_rows, item_rows)), shape=shape)
    centred = sparse.csr_matrix((values.astype(np.float64) - mean, (user_rows, item_rows)), shape=shape)
    user_side = _Side(pattern, centred, user_columns, ridge)
    item_side = _Side(pattern.T.tocsr(), centred.T.tocsr(), item_columns, ridge)
    users, items, centres = _start(n_users, n_items, dimension, rng)
    user_prior = _start_prior(user_columns, dimension, 1.0)
    item_prior, noise = _start_prior(item_columns, dimension, 1 / START_DEVIATION), 1.0
    for _ in range(iterations):
        users, _ = user_side.update(items, centres[0], user_prior.precision, noise)
        items, spread = item_side.update(users, centres[1], item_prior.precision, noise)
        user_prior, user_centre = user_side.fit_prior(users)
        item_prior, item_centre = item_side.fit_prior(items)
        centres = (user_centre, item_centre)
        errors = values - predict(mean, users, items, user_rows, item_rows)
        noise = len(values) / (float((errors**2).sum()) + spread)
    # The served user is solved against these items and this prior: so are the ones given back.
    users, _ = user_side.update(items, centres[0], user_prior.precision, noise)
    if not (np.isfinite(users.mean).all() and np.isfinite(items.mean).all() and np.isfinite(noise)):
        raise TrainingError("the rating model is not finite", next_step="lower rating.dimension")
    return Posterior(mean, users, items, user_prior, item_prior, float(noise))


def predict(mean: float, users: Moments, items: Moments, user_rows: np.ndarray, item_rows: np.ndarray) -> np.ndarray:
    """Posterior mean of the value of each pair, float64 ``(pairs,)``."""
    biases = mean + users.mean[user_rows, 0] + items.mean[item_rows, 0]
    products: np.ndarray = np.einsum("nd,nd->n", users.mean[user_rows, 1:], items.mean[item_rows, 1:])
    return biases + products


def _start(
    n_users: int, n_items: int, dimension: int, rng: np.random.Generator
) -> tuple[Moments, Moments, tuple[np.ndarray, np.ndarray]]:
    width = dimension + 1
    users = Moments(np.zeros((n_users, width)), np.zeros((n_users, width, width)))
    mean = START_DEVIATION * rng.standard_normal((n_items, width))
    mean[:, 0] = 0.0
    covariance = np.tile(START_VARIANCE * np.eye(width), (n_items, 1, 1))
    return users, Moments(mean, covariance), (np.zeros((n_users, width)), np.zeros((n_items, width)))


def _start_prior(columns: sparse.csr_matrix, dimension: int, of_vector: float) -> Prior:
    precision = np.concatenate([[START_PRECISION], np.full(dimension, of_vector)])
    return Prior(np.zeros((columns.shape[1], dimension + 1)), precision)
