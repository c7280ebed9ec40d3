from __future__ import annotations

import numpy as np
import pytest
import torch

from core.histories import Histories
from core.tensors import MASKED
from training.models.recall_base import RecallModel
from training.models.similar import NearestItems, NearestUsers, vectors_of_users

CLUSTERS, PER_CLUSTER, D = 5, 12, 8
N_ITEMS = CLUSTERS * PER_CLUSTER
CLUSTER = np.arange(N_ITEMS) % CLUSTERS
R = 7


def planted(unknown: tuple[int, ...] = ()) -> torch.Tensor:
    """Vectors of items in five clusters around a shared part; the last row and the unknown ones are zero."""
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((D, D)))[0][:CLUSTERS]
    vectors = centres[CLUSTER] + 0.1 * rng.standard_normal((N_ITEMS, D)) + 2.0
    vectors[list(unknown)] = 0
    return torch.from_numpy(np.append(vectors, np.zeros((1, D)), axis=0).astype(np.float32))


def ask(model: NearestItems, *questions: list[int], exclude: list[int] | None = None) -> list[np.ndarray]:
    rows = np.full((len(questions), 16), N_ITEMS)
    for at, question in enumerate(questions):
        rows[at, : len(question)] = question
    excluded = np.concatenate([rows, np.tile(np.array([*(exclude or []), N_ITEMS]), (len(rows), 1))], axis=1)
    with torch.no_grad():
        return [output.numpy() for output in model(torch.from_numpy(rows), torch.from_numpy(excluded))]


class MeanModel(RecallModel):
    """A user is the mean of the vectors of the history's items."""

    kind = "mean"

    def user_vectors(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        present = (rows != self.n_items).float()
        return self.item_vectors[rows].sum(1) / present.sum(1, keepdim=True).clamp(min=1)

    def facts(self) -> dict[str, object]:
        return {}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, object]) -> MeanModel:
        raise NotImplementedError


def mean_model() -> MeanModel:
    bias = torch.zeros(N_ITEMS + 1)
    return MeanModel(planted(), bias, bias, 10)


def histories_of_clusters(n_users: int) -> Histories:
    """User u has items of cluster u mod 5; the last user has none."""
    rng = np.random.default_rng(1)
    users, items = [], []
    for user in range(n_users - 1):
        own = rng.choice(np.flatnonzero(user % CLUSTERS == CLUSTER), 4 + user % 5, replace=False)
        users += [user] * len(own)
        items += own.tolist()
    zeros = np.zeros(len(users))
    return Histories.from_events(np.array(users), np.array(items), zeros, zeros, n_users)


def test_nearest_items_are_the_planted_cluster() -> None:
    rows, scores, reasons, weights, final = ask(NearestItems(planted(), R), *[[item] for item in range(N_ITEMS)])
    assert (CLUSTER[rows] == CLUSTER[:, None]).all()
    assert not (rows == np.arange(N_ITEMS)[:, None]).any()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (reasons[:, :, 0] == np.arange(N_ITEMS)[:, None]).all()
    assert (reasons[:, :, 1:] == N_ITEMS).all()
    assert np.allclose(weights[:, :, 0], scores, atol=1e-5)
    assert (final == 1).all()


def test_several_items_bring_items_of_each_with_their_reasons() -> None:
    rows, _, reasons, _, _ = ask(NearestItems(planted(), 20), [0, 1])
    assert set(CLUSTER[rows[0]]) == {0, 1}
    assert (CLUSTER[reasons[0, :, 0]] == CLUSTER[rows[0]]).all()
    assert not np.isin(rows, [0, 1]).any()


def test_excluded_items_do_not_come_back() -> None:
    rows, *_ = ask(NearestItems(planted(), R), [0], exclude=[5, 10])
    assert not np.isin(rows, [0, 5, 10]).any()


def test_unknown_items_have_no_neighbours_and_are_none() -> None:
    rows, scores, *_ = ask(NearestItems(planted(unknown=(5,)), R), [5], [0], [])
    for empty in (0, 2):
        assert (scores[empty] <= MASKED).all()
        assert (rows[empty] == N_ITEMS).all()
    assert 5 not in rows[1]
    assert (scores[1] > 0).all()


def test_lists_longer_than_the_catalogue_are_padded() -> None:
    rows, scores, reasons, weights, _ = ask(NearestItems(planted(), N_ITEMS + 9), [0])
    assert rows.shape == (1, N_ITEMS + 9)
    assert (rows[0, N_ITEMS - 1 :] == N_ITEMS).all()
    assert (scores[0, N_ITEMS - 1 :] <= MASKED).all()
    assert sorted(rows[0, : N_ITEMS - 1]) == list(range(1, N_ITEMS))
    assert (reasons[0, N_ITEMS - 1 :] == N_ITEMS).all()
    assert not weights[0, N_ITEMS - 1 :].any()


def test_vectors_of_users_are_those_of_single_requests() -> None:
    model, histories = mean_model(), histories_of_clusters(40)
    vectors = vectors_of_users(model, histories)
    assert vectors.shape == (40, D)
    assert not vectors[-1].any()
    for user in (0, 7, 38):
        wanted = model.item_vectors[torch.from_numpy(histories.of(user).item_rows.astype(np.int64))].mean(0)
        assert np.allclose(vectors[user], wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("user", range(5))
def test_nearest_users_have_the_taste_of_the_history(user: int) -> None:
    histories = histories_of_clusters(60)
    model = mean_model()
    nearest = NearestUsers(model, vectors_of_users(model, histories), 12)
    rows = np.full((2, 16), N_ITEMS)
    own = histories.of(user).item_rows
    rows[0, : len(own)] = own
    zeros = torch.zeros(2, 16)
    with torch.no_grad():
        found, scores = nearest(torch.from_numpy(rows), zeros, zeros, torch.zeros(2, 16, dtype=torch.int64))
    assert set((found[0, :11] % CLUSTERS).tolist()) == {user % CLUSTERS}
    assert int(found[0, 0]) == user
    assert float(scores[0, 0]) == pytest.approx(1, abs=1e-5)
    assert (scores[1] <= MASKED).all()
