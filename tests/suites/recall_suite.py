"""What every recall model must do; inherit, name the fit function and the quality floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
import torch

from core import metrics
from core.dataset import Dataset
from core.errors import TrainingError
from core.histories import Histories, PaddedHistories, pad
from core.progress import Bar
from core.settings import Settings, load_settings
from core.tensors import MASKED, StepSpec
from export.onnx_graph import export_graph
from tests.suites.recall_data import UNSEEN_ITEMS, block_dataset
from training.models.recall import RecallModel, restore_model, save_model

FIT = ("train",)


class RecallSuite:
    """Base of the recall models' tests."""

    fit: ClassVar[Callable[..., RecallModel]]
    spec: ClassVar[StepSpec]
    settings: ClassVar[tuple[str, ...]] = ()
    """``--set`` options that make training short."""
    expected_ndcg: ClassVar[float]
    """Floor of NDCG@10 on the blocks."""
    expected_ndcg_without_times: ClassVar[float]

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls) -> Dataset:
        return block_dataset()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, dataset: Dataset) -> RecallModel:
        return cls.train(dataset)

    @classmethod
    def train(cls, dataset: Dataset, *overrides: str, seed: int = 0) -> RecallModel:
        settings = load_settings((), (*cls.settings, *overrides))
        return cls.fit(dataset, dataset.events.of_splits(FIT), settings, seed=seed)

    def test_ndcg_reaches_floor(self, dataset: Dataset, model: RecallModel) -> None:
        assert ndcg(dataset, model) >= self.expected_ndcg

    def test_ranking_beats_popularity_by_far(self, dataset: Dataset, model: RecallModel) -> None:
        assert ndcg(dataset, model) > 1.5 * popularity_ndcg(dataset)

    def test_ndcg_reaches_floor_when_data_has_neither_times_nor_values(self) -> None:
        dataset = block_dataset(has_times=False, has_values=False)
        assert ndcg(dataset, self.train(dataset)) >= self.expected_ndcg_without_times

    def test_wide_sparse_catalogue_is_learned_with_the_same_settings(self) -> None:
        dataset = block_dataset(n_users=2_000, block_items=400)
        assert ndcg(dataset, self.train(dataset)) > 1.5 * popularity_ndcg(dataset)

    def test_users_with_one_session_only_can_be_learned_from(self) -> None:
        dataset = block_dataset(sessions=1)
        assert all(torch.isfinite(tensor).all() for tensor in self.train(dataset).state_dict().values())

    def test_same_seed_gives_same_weights(self, dataset: Dataset, model: RecallModel) -> None:
        again = self.train(dataset).state_dict()
        assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())

    def test_other_seed_gives_other_weights(self, dataset: Dataset, model: RecallModel) -> None:
        assert not torch.equal(self.train(dataset, seed=1).item_vectors, model.item_vectors)

    def test_saved_model_answers_alike_after_loading(
        self, dataset: Dataset, model: RecallModel, tmp_path: Path
    ) -> None:
        facts = save_model(model, tmp_path)
        inputs = requests(dataset, 7, 16)
        for one, two in zip(model(*inputs), restore_model(tmp_path, facts)(*inputs), strict=True):
            assert torch.equal(one, two)

    def test_forward_is_sorted_by_score(self, dataset: Dataset, model: RecallModel) -> None:
        _, scores = model(*requests(dataset, 7, 64))
        assert (scores.diff(dim=1) <= 0).all()

    def test_forward_agrees_with_sorting_all_scores(self, dataset: Dataset, model: RecallModel) -> None:
        *history, _, features = requests(dataset, 7, 64)
        nothing = torch.full((7, 16), model.n_items)
        expected = model.scores(*history, features).argsort(dim=1, descending=True)[:, : model.candidates]
        assert torch.equal(model(*history, nothing, features)[0], expected)

    def test_excluded_and_padding_rows_are_masked(self, dataset: Dataset, model: RecallModel) -> None:
        *history, exclude, features = requests(dataset, 7, 64)
        rows, scores = model(*history, exclude, features)
        real = scores > MASKED
        banned = (rows[:, :, None] == exclude[:, None, :]).any(2) | (rows == model.n_items)
        assert not (banned & real).any()
        assert real.any(dim=1).all()

    def test_longer_padding_changes_no_score(self, dataset: Dataset, model: RecallModel) -> None:
        *history, _, features = requests(dataset, 7, 16)
        fill = (model.n_items, 0, 0, 0)
        wide = [torch.nn.functional.pad(t, (0, 48), value=v) for t, v in zip(history, fill, strict=True)]
        expected = model.scores(*history, features)
        torch.testing.assert_close(model.scores(*wide, features), expected, rtol=1e-5, atol=1e-6)

    def test_empty_history_gets_popular_items_without_ties(self, dataset: Dataset, model: RecallModel) -> None:
        best, scores = model(*empty_requests(dataset, 2))
        counts = np.bincount(dataset.events.of_splits(FIT).item_rows, minlength=dataset.n_items)
        assert torch.equal(best[0], best[1])
        assert (scores.diff(dim=1) < 0).all()
        assert counts[best[0, :10]].mean() > 1.5 * counts.mean()

    def test_items_without_events_come_last_in_row_order(self, dataset: Dataset, model: RecallModel) -> None:
        nothing = torch.full((7, 16), model.n_items)
        for *history, _, features in (requests(dataset, 7, 64), empty_requests(dataset, 7)):
            rows, _ = model(*history, nothing, features)
            unseen = torch.arange(dataset.n_items - UNSEEN_ITEMS, dataset.n_items)
            assert (rows[:, -UNSEEN_ITEMS:] == unseen).all()

    def test_candidates_end_at_the_catalogue(self, dataset: Dataset, model: RecallModel) -> None:
        assert model.candidates == dataset.n_items
        assert self.train(dataset, "recall.candidates=5").candidates == 5

    def test_item_table_ends_with_zero_row_and_masked_bias(self, model: RecallModel) -> None:
        assert (model.item_vectors[-1] == 0).all()
        assert model.item_bias[-1] <= MASKED

    @pytest.fixture(scope="class")
    @classmethod
    def session(
        cls, dataset: Dataset, model: RecallModel, tmp_path_factory: pytest.TempPathFactory
    ) -> onnxruntime.InferenceSession:
        path = tmp_path_factory.mktemp("graph") / f"{cls.spec.name}.onnx"
        example = dict(zip([t.name for t in cls.spec.inputs], requests(dataset, 2, 64), strict=True))
        export_graph(model, cls.spec, example, path, opset=20, max_batch=64)
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    @pytest.mark.parametrize("length", [16, 64])
    @pytest.mark.parametrize("batch", [1, 2, 7])
    def test_exported_graph_agrees(
        self,
        dataset: Dataset,
        model: RecallModel,
        session: onnxruntime.InferenceSession,
        batch: int,
        length: int,
    ) -> None:
        inputs = requests(dataset, batch, length)
        names = [tensor.name for tensor in self.spec.inputs]
        rows, scores = session.run(None, {name: t.numpy() for name, t in zip(names, inputs, strict=True)})
        expected_rows, expected_scores = (tensor.numpy() for tensor in model(*inputs))
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-4)
        tied = np.isclose(scores, np.roll(scores, 1, 1), atol=1e-4) | np.isclose(
            scores, np.roll(scores, -1, 1), atol=1e-4
        )
        assert (rows == expected_rows)[~tied].all()

    def test_training_without_events_is_refused(self, dataset: Dataset) -> None:
        with pytest.raises(TrainingError, match="no events"):
            type(self).fit(dataset, dataset.events.of_splits(()), Settings(), seed=0)

    def test_training_stops_when_values_are_not_finite(self, dataset: Dataset) -> None:
        events = dataset.events
        values = events.values.copy()
        values[::7] = np.nan
        with pytest.raises(TrainingError, match=r"not finite|diverged"):
            self.train(replace(dataset, events=replace(events, values=values)))

    def test_progress_shows_a_loss_for_every_epoch(self, dataset: Dataset) -> None:
        seen = RecordingProgress()
        settings = load_settings((), self.settings)
        type(self).fit(dataset, dataset.events.of_splits(FIT), settings, seed=0, progress=seen)
        losses = [float(note.removeprefix("loss ")) for note in seen.notes]
        assert len(losses) == seen.total
        assert losses[-1] < losses[0]
        curve = [step for name, step, _ in seen.points if name.endswith(" loss")]
        assert curve == list(range(1, seen.total + 1))


class ClosedFormSuite(RecallSuite):
    """Recall models that are solved at once."""

    def test_progress_shows_a_loss_for_every_epoch(self, dataset: Dataset) -> None:
        """There are no epochs: one step, done."""
        seen = RecordingProgress()
        settings = load_settings((), self.settings)
        type(self).fit(dataset, dataset.events.of_splits(FIT), settings, seed=0, progress=seen)
        assert seen.total == len(seen.notes) == 1


class RecordingProgress:
    """Keeps what a run told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.total = 0
        self.points: list[tuple[str, int, float]] = []

    def bar(self, label: str, total: int) -> AbstractContextManager[Bar]:
        self.total = total
        return self._recorded()

    @contextmanager
    def _recorded(self) -> Iterator[Bar]:
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.notes.append(note)

    def say(self, line: str) -> None:
        self.notes.append(line)

    def record(self, curve: str, step: int, value: float) -> None:
        self.points.append((curve, step, value))


Inputs = tuple[torch.Tensor, ...]
"""What a recall step takes, in its order."""


def requests(dataset: Dataset, batch: int, length: int) -> Inputs:
    """Histories of ``batch`` users with ``length`` places; the last one is empty where there is more than one."""
    histories = dataset.histories(FIT).select(np.arange(batch))
    padded = pad(histories, dataset.n_items)
    inputs = [padded.rows, padded.ages, padded.values, padded.kinds, padded.exclude]
    fill = [dataset.n_items, 0, 0, 0, dataset.n_items]
    if batch > 1:
        for array, value in zip(inputs, fill, strict=True):
            array[-1] = value
    widened = (
        torch.nn.functional.pad(torch.from_numpy(array), (0, length - array.shape[1]), value=value)
        for array, value in zip(inputs, fill, strict=True)
    )
    return *widened, no_features(batch)


def empty_requests(dataset: Dataset, batch: int) -> Inputs:
    """Users without a history."""
    return as_tensors(pad(Histories(np.zeros(batch + 1, np.int64), *(np.zeros(0),) * 4), dataset.n_items))


def as_tensors(padded: PaddedHistories) -> Inputs:
    parts = (padded.rows, padded.ages, padded.values, padded.kinds, padded.exclude)
    return *map(torch.from_numpy, parts), no_features(len(padded.rows))


def no_features(batch: int) -> torch.Tensor:
    return torch.zeros(batch, 1, dtype=torch.int64)


def ndcg(dataset: Dataset, model: RecallModel) -> float:
    """Mean NDCG@10 of the test split."""
    rows, _ = model(*as_tensors(pad(dataset.histories(FIT), dataset.n_items)))
    return _mean_ndcg(dataset, rows[:, :10].numpy())


def popularity_ndcg(dataset: Dataset) -> float:
    """Mean NDCG@10 of the most popular unseen items."""
    train = dataset.events.of_splits(FIT)
    counts = np.bincount(train.item_rows, minlength=dataset.n_items).astype(float)
    scores = np.broadcast_to(counts, (dataset.n_users, dataset.n_items)).copy()
    scores[train.user_rows, train.item_rows] = -1
    return _mean_ndcg(dataset, np.argsort(-scores, axis=1, kind="stable")[:, :10])


def _mean_ndcg(dataset: Dataset, lists: np.ndarray) -> float:
    test = dataset.events.of_splits(("test",))
    truth = metrics.truth_of(test.user_rows, test.item_rows, dataset.n_users)
    return float(metrics.ndcg(metrics.hits(lists, truth), truth.sizes, 10).mean())
