"""Any pairs of users and items through the rating model, in padded batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from core.dataset import Dataset
from core.histories import Histories, pad
from training.ratings.model import SUMMARY, RatingModel

BATCH_USERS = 64


@dataclass(frozen=True)
class PairBatch:
    """Inputs of the model for some users, and where their pairs belong.

    Attributes:
        inputs: History rows and values ``(B, L)``, user features ``(B, F)``, item rows ``(B, Q)``.
        places: Index of each asked pair, int64 ``(pairs,)``.
        users: Its row in the batch.
        columns: Its place among the user's items.
    """

    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    places: np.ndarray
    users: np.ndarray
    columns: np.ndarray


def predict_pairs(
    model: RatingModel, dataset: Dataset, histories: Histories, user_rows: np.ndarray, item_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ratings on the scale of the data and like probabilities, float32 ``(pairs,)`` each.

    Args:
        model: The rating model.
        dataset: Catalogue and user attributes.
        histories: Of all users, what the model may know of them.
        user_rows: int ``(pairs,)``.
        item_rows: int ``(pairs,)``.
    """
    ratings, probabilities = (np.zeros(len(user_rows), dtype=np.float32) for _ in range(2))
    with torch.no_grad():
        for batch in pair_batches(dataset, histories, user_rows, item_rows):
            rating, probability = model(*batch.inputs)
            ratings[batch.places] = rating.numpy()[batch.users, batch.columns]
            probabilities[batch.places] = probability.numpy()[batch.users, batch.columns]
    return ratings, probabilities


def summarise_pairs(
    model: RatingModel, dataset: Dataset, histories: Histories, user_rows: np.ndarray, item_rows: np.ndarray
) -> np.ndarray:
    """The combiner's inputs float32 ``(pairs, len(SUMMARY))``; arguments as of ``predict_pairs``."""
    found = np.zeros((len(user_rows), len(SUMMARY)), dtype=np.float32)
    with torch.no_grad():
        for batch in pair_batches(dataset, histories, user_rows, item_rows):
            found[batch.places] = model.summary(*batch.inputs).numpy()[batch.users, batch.columns]
    return found


def pair_batches(
    dataset: Dataset, histories: Histories, user_rows: np.ndarray, item_rows: np.ndarray
) -> Iterator[PairBatch]:
    """Batches of users with similar history lengths, so that little is padded."""
    order = np.argsort(user_rows, kind="stable")
    asked, starts, counts = np.unique(user_rows[order], return_index=True, return_counts=True)
    by_length = np.argsort(histories.lengths[asked], kind="stable")
    codes = dataset.user_features.codes if dataset.user_features.width else np.zeros((dataset.n_users, 1), np.int32)
    for first in range(0, len(asked), BATCH_USERS):
        chosen = by_length[first : first + BATCH_USERS]
        users = asked[chosen]
        padded = pad(histories.select(users), dataset.n_items)
        rows_in_batch = np.repeat(np.arange(len(users)), counts[chosen])
        columns = np.arange(len(rows_in_batch)) - np.repeat(np.cumsum(counts[chosen]) - counts[chosen], counts[chosen])
        places = order[np.repeat(starts[chosen], counts[chosen]) + columns]
        items = np.full((len(users), int(counts[chosen].max())), dataset.n_items, dtype=np.int64)
        items[rows_in_batch, columns] = item_rows[places]
        inputs = (padded.rows, padded.values, codes[users].astype(np.int64), items)
        tensors = tuple(torch.from_numpy(array) for array in inputs)
        yield PairBatch((tensors[0], tensors[1], tensors[2], tensors[3]), places, rows_in_batch, columns)
