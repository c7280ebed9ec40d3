"""Recall models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from core.sections.base import LONGEST_SORT, Section


class EventWeightSettings(Section):
    """How much one event counts, see training/models/event_weights.py; shared by the models below."""

    value_slope: float = 0.4
    """Gain of an event's weight per standard deviation of its value."""
    least_value_weight: float = Field(0.1, gt=0)
    """Floor of that factor."""
    decay_days: float = Field(60.0, ge=0)
    """Age before the user's newest event at which an event counts half; 0 for no decay."""
    return_after_days: float = Field(10.0, ge=0)
    """An event later than this after the user's first one shows a user who came back."""
    return_boost: float = Field(10.0, gt=0)
    """Factor of such events: recommendations are asked for by users who come back."""


class MfSettings(EventWeightSettings):
    """Matrix factorisation by weighted iALS (Rendle et al. 2022), see training/models/mf_model.py."""

    dimension: int = Field(32, ge=1)
    """D, length of user and item vectors."""
    epochs: int = Field(10, ge=1)
    """Passes over users and items."""
    solver: Literal["numba", "torch"] = "numba"
    """numba: compiled loops on the CPU, fastest there. torch: also on a GPU."""
    cg_steps: int = Field(2, ge=1)
    """Conjugate gradient steps per row and epoch. Each row starts where the last epoch left it: two steps an epoch
    lose nothing against the exact solve."""
    unobserved_ratio: float = Field(4.0, gt=0)
    """Weight of all (user, item) pairs together, taken as zeros, against that of all observed events together."""
    regularisation: float = Field(0.03, gt=0)
    """Weight of each squared norm, times the row's mass to the power frequency_power."""
    frequency_power: float = Field(1.0, ge=0)
    """How regularisation grows with a row's mass (its event weights plus its share of the zeros)."""
    user_power: float = Field(0.0, ge=0)
    """Each event of a user with n events weighs (n / mean n)^-user_power: above 0, long histories say less."""
    popularity: float = Field(0.15, ge=0)
    """Weight of log popularity (summed event weights) in the item bias."""


class SpectralSettings(EventWeightSettings):
    """Low-pass filter of the user-item graph (GF-CF, Shen et al. 2021), see training/models/spectral.py."""

    dimension: int = Field(64, ge=1)
    """D, singular vectors kept."""
    response: float = Field(1.0, ge=0)
    """Power of the singular values in the filter: 0 passes all kept vectors alike, more favours the smooth ones."""
    item_power: float = Field(0.5, ge=0)
    """Power of an item's mass that its column is divided by before the decomposition."""
    user_power: float = Field(0.5, ge=0)
    """Power of a user's mass that the row is divided by: how little long histories say beside short ones."""
    iterations: int = Field(5, ge=1)
    """Block iterations of the decomposition; more separate close singular values better."""
    popularity: float = Field(0.05, ge=0)
    """Weight of log popularity (summed event weights) in the item bias."""


class EaseSettings(EventWeightSettings):
    """Item-item regression in closed form (EASE, Steck 2019), see training/models/ease.py."""

    regularisation: float = Field(10.0, gt=0)
    """Ridge as a multiple of an item's mean mass (sum of squared entries), so that it suits data of any density."""
    weight_power: float = Field(0.5, ge=0)
    """Entries of the user-item matrix are event weights to this power."""
    popularity: float = Field(0.2, ge=0)
    """Weight of log popularity (summed event weights) in the item bias."""
    max_items: int = Field(10_000, ge=1)
    """Larger catalogues are refused: the table has (items + 1)^2 cells, 400 MB here, and fitting takes six times
    that."""


class GatSettings(Section):
    """Graph attention recall, see training/models/gat_model.py."""

    dimension: int = Field(32, ge=1)
    """D, length of the item vectors."""
    heads: int = Field(1, ge=1)
    """H, attention heads. Each weighs history and near items on its own and has D / H numbers of a vector."""
    bag: int = Field(1, ge=1)
    """Networks trained apart whose vectors stand side by side: a served vector has bag times D numbers."""
    use_times: bool = True
    """Whether order and times of events count, in training and in answers."""
    use_values: bool = True
    """Whether values (ratings) count."""
    epochs: int = Field(8, ge=1)
    """Passes over users; the schedule ends with the last, there is no early stop."""
    neighbours: int = Field(20, ge=0)
    """Nearest items that each item listens to."""
    batch_users: int = Field(128, ge=1)
    """Examples per step."""
    max_users_per_epoch: int = Field(0, ge=0)
    """Users drawn per epoch; 0 takes all."""
    table_rate: float = Field(0.004, gt=0)
    """Adam's learning rate of the two item tables."""
    scalar_rate: float = Field(0.03, gt=0)
    """Adam's learning rate of everything else: attention scalars, item bias, length scale."""
    start_scale: float = Field(1.0, gt=0)
    """Root mean square of the item tables before training; a smaller one lets them move further."""
    stay_close: float = Field(0.1, ge=0)
    """Weight of the squared distance between an item's parameters and their start."""
    session_gap_days: float = Field(1.0, gt=0)
    """A longer pause opens a session; the model learns to continue after such pauses."""
    random_cut_weight: float = Field(0.05, gt=0)
    """Weight of examples cut anywhere, against 1 for those cut at a session gap."""
    drop: float = Field(0.5, ge=0, lt=1)
    """Share of the history left out at random in training."""
    popularity: float = Field(0.3, ge=0)
    """Weight of log popularity in the item bias before training."""
    full_softmax_items: int = Field(50_000, ge=1)
    """Larger catalogues estimate the softmax from samples."""
    samples: int = Field(8_192, ge=1)
    """Items sampled per step, shared by its users."""
    sample_power: float = Field(0.75, ge=0)
    """Items are sampled in proportion to their count to this power."""


class MixSettings(Section):
    """Several recall models as one, see training/models/mix_model.py."""

    members: tuple[str, ...] = Field(("mf", "gat"), min_length=1)
    """Recall models, with settings of their own if need be: "mf dimension=64 epochs=7". An entry that stands there
    several times is fitted with as many seeds; together they have one weight."""
    method: Literal["average", "weighted", "bagging", "boosting", "stacking"] = "weighted"
    """average: equal weights. weighted: see weights. bagging: every member several times on samples of the users.
    boosting: each further member learns from the users that the earlier ones serve badly. stacking: weights that
    depend on the user's history."""
    weights: tuple[float, ...] = ()
    """method=weighted: one per different member; empty learns them on held-out windows of the events."""
    windows: int = Field(2, ge=1)
    """Windows at the end of the events that weights are learned on, by members fitted on what came before each."""
    window_share: float = Field(0.1, gt=0, le=0.3)
    """Share of the events in each window."""
    older_weight: float = Field(0.5, gt=0, le=1)
    """Say of a window against that of the next newer one."""
    follow_time: bool = False
    """Learned weights follow their trend over the windows, one window ahead; needs at least two."""
    max_users: int = Field(4_000, ge=2)
    """Users per window that weights are learned from; a random choice where there are more."""
    bags: int = Field(4, ge=1)
    """method=bagging: how often each member is fitted."""
    bag_share: float = Field(0.8, gt=0, le=1)
    """method=bagging: share of the users in each sample."""
    rounds: int = Field(4, ge=1)
    """method=boosting: most members; fewer where held-out users gain nothing more."""
    shrinkage: float = Field(0.5, gt=0, le=1)
    """method=boosting: share of the best step that a further member gets."""


class RecallSettings(Section):
    sources: tuple[str, ...] = Field(("mf", "gat"), min_length=1)
    """Recall models that are trained and served side by side; the ranker merges their candidates."""
    candidates: int = Field(200, ge=1)
    """K, candidates per recall source. The rank graph sorts all lists at once, and TensorRT's TopK ends at 3840."""
    popularity_half_life_days: float = Field(30.0, gt=0)
    """Users without a history get what is popular: an event counts half for each such time before the newest one."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.sources)) != len(self.sources):
            raise ValueError("recall.sources names a model twice")
        if len(self.sources) * self.candidates > LONGEST_SORT:
            raise ValueError(f"recall.candidates times the number of recall.sources is above {LONGEST_SORT}")
        return self


class ContentSettings(Section):
    """Items without events get vectors from what they are made of, see training/content."""

    enabled: bool = False
    """Whether recall models learn vectors for items without events, or with few. Off: the ranker is not taught on such
    items yet and puts too many of them on top."""
    text: Literal["none", "ngrams", "minilm"] = "none"
    """Text of the items: words and parts of words, or sentence vectors (extra `text`)."""
    text_dimension: int = Field(64, ge=1)
    """Width of the n-gram vectors."""
    dimension: int = Field(64, ge=1)
    """C, width of the content vector in which attributes, text and vectors meet."""
    steps: int = Field(40, ge=0)
    """Most training steps; the best number is chosen on items held out whole."""
    batch_users: int = Field(256, ge=1)
    """Users per step."""
    max_users: int = Field(4_000, ge=1)
    """Users that the tower learns from; a random choice where there are more."""
    learning_rate: float = Field(0.01, gt=0)
    weight_decay: float = Field(0.001, ge=0)
    shrinkage: float = Field(1e-4, ge=0)
    """Weight of the squared norm of the tower's parameters."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of attribute values and of vectors' numbers left out while training."""
    ranking_weight: float = Field(1.0, ge=0)
    """Weight of the ranking loss against the error of the vectors."""
    least_events: int = Field(5, ge=1)
    """Items with fewer events teach nothing."""
    held_out: float = Field(0.1, gt=0, lt=1)
    """Share of the items that is held out to choose the number of steps."""
    support: float = Field(0.0, ge=0)
    """Number of events at which an item's own vector counts as much as the one from its content."""
    exposure: float = Field(0.02, ge=0)
    """Share of the first ten places that items without events get, as a multiple of their share of the catalogue."""
    start: Path | None = None
    """Folder of a content artefact whose tower is the start: what another catalogue taught."""
