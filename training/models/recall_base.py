"""What all recall models are: a user vector from a padded history, a score for every item, the best K."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from core.columns import blocks
from core.dataset import Dataset, Events
from core.histories import SECONDS_PER_DAY
from core.progress import Progress
from core.settings import Settings
from core.tensors import MASKED
from training.models.newcomers import Newcomers

UNSEEN = -64.0
"""Bias of items without training events: below every score that a trained item gets."""
ROW_STEP = 2.0**-16
"""How much each further row lowers an unseen item; exact in float32 up to 4 million rows."""


class PackedPart(Protocol):
    """How a table or column of a compressed model is stored, see ``compression.packed``."""

    def served(self, flavour: str, exact: bool) -> nn.Module:
        """The module that stands for it in the exported graph; an ``exact`` one computes what torch computes."""
        ...


@runtime_checkable
class BestFinder(Protocol):
    """A form of the item table that finds the best items itself, without scores of all."""

    def best(
        self, vectors: torch.Tensor, filled: torch.Tensor, exclude_rows: torch.Tensor, candidates: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and scores ``(B, K)`` for user vectors ``(B, D)``; ``filled`` is 1 where there is a history, else 0."""
        ...


class RecallModel(nn.Module):
    """Base of the recall models; the module is the served graph.

    Scores are ``user_vectors @ item_vectors.T + item_bias``. An empty history has the zero vector and is ordered by
    ``empty_bias`` instead, the log of recent popularity, in which no two items tie: new users want what is popular
    now, returning users what is popular with those who return. Where ``newcomers`` is set, an empty history has the
    vector that the user's attributes suggest.

    Args:
        item_vectors: float32 ``(I + 1, D)``, last row zero.
        item_bias: float32 ``(I + 1,)``, last entry ``MASKED``: padding is never recommended.
        empty_bias: float32 ``(I + 1,)``, likewise.
        candidates: K; at most I are returned.
    """

    kind: ClassVar[str]
    """Name of the model and of its artefact."""
    takes_content: ClassVar[bool] = True
    """Whether an item without events can be given vectors from outside: scores are dot products of width D."""

    item_vectors: torch.Tensor
    item_bias: torch.Tensor
    empty_bias: torch.Tensor

    def __init__(
        self, item_vectors: torch.Tensor, item_bias: torch.Tensor, empty_bias: torch.Tensor, candidates: int
    ) -> None:
        super().__init__()
        self.n_items = item_vectors.shape[0] - 1
        self.candidates = min(candidates, self.n_items)
        self.register_buffer("item_vectors", item_vectors.float().contiguous())
        self.register_buffer("item_bias", item_bias.float().contiguous())
        self.register_buffer("empty_bias", empty_bias.float().contiguous())
        self.newcomers: Newcomers | None = None
        self.packed: Mapping[str, PackedPart] = {}
        self.forms = nn.ModuleDict()

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.item_vectors.shape[1])

    @property
    def similarity_vectors(self) -> torch.Tensor:
        """Vectors by which items are compared with each other ``(I + 1, D)``, last row zero."""
        return self.item_vectors

    def item_tables(self) -> dict[str, torch.Tensor]:
        """All tables ``(I + 1, D)`` by name: each item as a candidate, and as a part of a history."""
        shape = self.item_vectors.shape
        return {name: table for name, table in self.named_buffers(recurse=False) if table.shape == shape}

    def rows_of(self, table: str, rows: torch.Tensor) -> torch.Tensor:
        """Rows ``(B, L, D)`` of a table by name; ``rows`` int64 ``(B, L)``."""
        if table in self.forms:
            found: torch.Tensor = self.forms[table](rows)
            return found
        return F.embedding(rows, getattr(self, table))

    def column(self, name: str) -> torch.Tensor:
        """A number per item ``(I + 1,)`` by name: ``item_bias``, ``empty_bias``."""
        values: torch.Tensor = self.forms[name]() if name in self.forms else getattr(self, name)
        return values

    def products(self, vectors: torch.Tensor) -> torch.Tensor:
        """Dot products ``(B, I + 1)`` of user vectors ``(B, D)`` with all items."""
        if "item_vectors" in self.forms:
            found: torch.Tensor = self.forms["item_vectors"].scan(vectors)  # type: ignore[operator]
            return found
        return vectors @ self.item_vectors.T

    def served(self, flavour: str, exact: bool = False) -> RecallModel:
        """What is exported for a flavour: a copy whose packed parts have that flavour's form.

        Args:
            flavour: See ``compression.candidate.Flavour``.
            exact: Whether scores must be exact for all items, not only for the best.
        """
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.forms = nn.ModuleDict({name: part.served(flavour, exact) for name, part in self.packed.items()})
        return other

    @property
    def finds_best(self) -> bool:
        """Whether this is a served copy whose item table finds the best itself: not quite what the original computes,
        but torch computes just what the exported graph does."""
        return any(isinstance(form, BestFinder) for form in self.forms.values())

    @abstractmethod
    def user_vectors(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """Vectors float32 ``(B, D)`` of padded histories ``(B, L)`` (see ``core.tensors``); zero where empty."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """JSON-able facts that ``from_tensors`` needs beside the weights."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Self:
        """The model that ``state_dict()`` and ``facts()`` were taken from."""

    def scores(
        self,
        rows: torch.Tensor,
        ages: torch.Tensor,
        values: torch.Tensor,
        kinds: torch.Tensor,
        user_features: torch.Tensor,
    ) -> torch.Tensor:
        """Scores of the whole catalogue, float32 ``(B, I + 1)``, seen items included; the last column is ``MASKED``."""
        vectors, bias = self.questions(rows, ages, values, kinds, user_features)
        return self.products(vectors) + bias

    def questions(
        self,
        rows: torch.Tensor,
        ages: torch.Tensor,
        values: torch.Tensor,
        kinds: torch.Tensor,
        user_features: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """User vectors ``(B, D)`` and what is added to their products with all items ``(B, I + 1)``."""
        vectors, filled = self.askers(rows, ages, values, kinds, user_features)
        return vectors, torch.where(filled > 0, self.column("item_bias"), self.column("empty_bias"))

    def askers(
        self,
        rows: torch.Tensor,
        ages: torch.Tensor,
        values: torch.Tensor,
        kinds: torch.Tensor,
        user_features: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """User vectors ``(B, D)`` and whether there is a history, 0 or 1 ``(B, 1)``."""
        filled = (rows != self.n_items).to(ages.dtype).amax(dim=1, keepdim=True)
        vectors = self.user_vectors(rows, ages, values, kinds)
        if self.newcomers is not None:
            vectors = vectors + (1 - filled) * self.newcomers(user_features)
        return vectors, filled

    def forward(
        self,
        history_rows: torch.Tensor,
        history_ages: torch.Tensor,
        history_values: torch.Tensor,
        history_kinds: torch.Tensor,
        exclude_rows: torch.Tensor,
        user_features: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best K items.

        Args:
            history_rows: int64 ``(B, L)``, newest first, padded with I.
            history_ages: float32 ``(B, L)``, days before the user's newest event.
            history_values: float32 ``(B, L)``, standardised values.
            history_kinds: int64 ``(B, L)``, codes of the events' kinds.
            exclude_rows: int64 ``(B, X)``, rows that must not come back, padded with I.
            user_features: int64 ``(B, F)``, attribute codes.

        Returns:
            Rows int64 ``(B, K)`` and scores float32 ``(B, K)``, best first; ``<= MASKED`` marks no candidate.
        """
        question = (history_rows, history_ages, history_values, history_kinds, user_features)
        form = dict(self.forms.items()).get("item_vectors")
        if isinstance(form, BestFinder):
            return form.best(*self.askers(*question), exclude_rows, self.candidates)
        spare = getattr(form, "spare", 0)
        if spare:
            return self._scored_again(*self.questions(*question), exclude_rows, spare)
        scores = self.scores(*question)
        allowed = scores.scatter(1, exclude_rows, MASKED)  # not reducing: TensorRT-RTX has no ScatterElements reduction
        best, rows = torch.topk(allowed, self.candidates, dim=1)
        return rows, best

    def _scored_again(
        self, vectors: torch.Tensor, bias: torch.Tensor, exclude_rows: torch.Tensor, spare: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best K where products are approximate: ``spare`` more are fetched, and all scored from exact rows."""
        allowed = (self.products(vectors) + bias).scatter(1, exclude_rows, MASKED)
        best, rows = torch.topk(allowed, min(self.candidates + spare, self.n_items), dim=1)
        exact = (self.rows_of("item_vectors", rows) @ vectors.unsqueeze(2)).squeeze(2) + bias.gather(1, rows)
        exact = torch.where(best > MASKED / 2, exact, best)
        scores, places = torch.topk(exact, self.candidates, dim=1)
        return rows.gather(1, places), scores


class Fitter(Protocol):
    """Fits one recall model on ``events``; see ``training.models.mf.fit_mf``."""

    def __call__(
        self, dataset: Dataset, events: Events, settings: Settings, *, seed: int, progress: Progress
    ) -> RecallModel: ...


AfterEpoch = Callable[[float, Callable[[], RecallModel]], None]
"""Takes the share of the epochs that is done, and what gives the model as it would be served if training ended now."""


def recent_popularity(events: Events, n_items: int, half_life_days: float) -> np.ndarray:
    """Events of each item, an event counting half for each ``half_life_days`` before the newest one.

    Returns:
        float64 ``(I,)``; 0 for items without events and for no others. Plain counts where the data has no times.
    """
    newest = events.timestamps.max(initial=0)
    recent = np.zeros(n_items)
    for part in blocks(events.timestamps, events.item_rows):
        ages = (newest - events.timestamps[part]) / SECONDS_PER_DAY
        weights = np.maximum(np.exp2(-ages / half_life_days), 1e-300)
        recent += np.bincount(events.item_rows[part], weights, minlength=n_items)
    return recent


def popularity_bias(popularity: np.ndarray, strength: float) -> np.ndarray:
    """Item bias ``strength * log(popularity)`` without ties, float32 ``(I + 1,)``.

    Equal popularity goes to the lower row by a few units of float32's last place, items never seen follow in row
    order below ``UNSEEN``, the padding row ends with ``MASKED``.

    Args:
        popularity: Non-negative mass of each item's events ``(I,)``; 0 is never seen.
        strength: Weight of the logarithm, at least 1e-3: the order of an empty history is nothing but the bias.
    """
    n_items = len(popularity)
    seen = popularity > 0
    bias = np.full(n_items + 1, MASKED, dtype=np.float32)
    bias[:-1] = UNSEEN - ROW_STEP * np.arange(n_items)
    logs = max(strength, 1e-3) * np.log(popularity[seen].astype(np.float64))
    bias[:-1][seen] = without_ties(logs.astype(np.float32))
    return bias


def without_ties(values: np.ndarray) -> np.ndarray:
    """Strictly ordered float32 values: each becomes the largest one below those before it in (value, row) order."""
    order = np.lexsort((np.arange(len(values)), -values))
    # float32 as ordered integers: neighbours differ by one, so a running maximum of (key - rank) separates ties
    bits = values[order].astype(np.float32).view(np.int32).astype(np.int64)
    keys = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    steps = np.arange(len(keys))
    keys = np.minimum.accumulate(keys + steps) - steps
    result = np.empty(len(values), dtype=np.float32)
    magnitude = np.abs(keys).astype(np.int32).view(np.float32)
    result[order] = np.where(keys < 0, -magnitude, magnitude)
    return result
