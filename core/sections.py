"""The sections of the settings tree. Each field's docstring is its documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Split = Literal["train", "valid", "test"]
Target = Literal["any", "liked"]
"""What counts as a hit: any later event, or only those valued at or above the mean (for example high ratings)."""

LONGEST_SORT = 3840
"""Most elements that TensorRT's TopK takes."""


class Section(BaseModel):
    """Base of all sections: frozen; a typo is an error, and so are NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class PathSettings(Section):
    var: Path = Path("var")
    """Everything that Conch writes lies under this folder."""


class DataSettings(Section):
    source: str = "movielens-100k"
    """movielens-100k, movielens-1m, movielens-10m, movielens-20m, movielens-25m, movielens-32m, files, synthetic."""
    events: Path | None = None
    """source=files: CSV (.gz too) or Parquet with user_id, item_id, timestamp and optionally value, event, split."""
    items: Path | None = None
    """source=files: optional table with item_id and any attribute columns."""
    users: Path | None = None
    """source=files: optional table with user_id and any attribute columns."""
    title_column: str = "title"
    """Item column shown to people; the id is shown where it is missing."""
    text_columns: tuple[str, ...] = ()
    """Item columns of prose that content vectors are made from; empty takes the title."""
    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Bad rows are dropped and counted up to this share of the file; above it the file is refused."""
    min_user_events: int = Field(1, ge=1)
    """k-core: users with fewer events are dropped, repeatedly with min_item_events."""
    min_item_events: int = Field(1, ge=1)
    """k-core: items with fewer events are dropped."""
    train_until: float = Field(0.8, gt=0, lt=1)
    """Quantile of time that ends the train split."""
    valid_until: float = Field(0.9, gt=0, lt=1)
    """Quantile of time that ends the valid split; later events are test."""
    synthetic_users: int = Field(0, ge=0)
    """0 takes one user per 40 events."""
    synthetic_items: int = Field(0, ge=0)
    """0 takes as many as suit the events: 500 for 50 thousand, 2,236 for a million."""
    synthetic_events: int = Field(50_000, ge=10)
    seed: int = 0
    """Seed of the synthetic generator."""


Statistic = Literal["popularity", "recent_popularity", "returning_popularity", "trend", "age", "mean_value"]


class FeatureSpec(Section):
    """One attribute made from the columns of a table, see training/data/derive.py."""

    column: str = ""
    """Column it is read from; empty for a cross."""
    name: str = ""
    """Its name; the column's, or the parts' joined by " x ", when empty."""
    kind: Literal["auto", "category", "tags", "number", "year", "date", "hash", "cross"] = "auto"
    """auto detects as without a spec; year finds one in a text (Toy Story (1995)); hash is for huge vocabularies."""
    buckets: int = Field(10, ge=0)
    """number, year: how many; 0 takes each value as it is. hash: how many."""
    scale: Literal["quantile", "linear", "log"] = "quantile"
    """number, year: buckets hold equally many rows, or are equally wide, or equally wide in log(1 + value)."""
    edges: tuple[float, ...] = ()
    """number, year: bounds between buckets, ascending, instead of ``buckets``."""
    part: Literal["year", "month", "weekday", "hour"] = "year"
    """date: which part of a time (UTC)."""
    min_count: int = Field(1, ge=1)
    """Values in fewer rows are unknown."""
    of: tuple[str, ...] = ()
    """cross: two or more columns, or names of specs before this one; tags cannot be crossed."""


class FeatureSettings(Section):
    """Which columns are used, and how. Without specs every column is used as what it looks like."""

    items: tuple[FeatureSpec, ...] = ()
    """Item attributes, for example {column = "title", kind = "year", buckets = 8}; all columns when empty."""
    users: tuple[FeatureSpec, ...] = ()
    """User attributes; all columns when empty."""
    skip_items: tuple[str, ...] = ()
    """Item attributes that are not used, by name."""
    skip_users: tuple[str, ...] = ()
    """User attributes that are not used, by name."""
    statistics: tuple[Statistic, ...] = get_args(Statistic)
    """Item columns made from the events that the ranker uses."""


class TrainSettings(Section):
    fit: tuple[Split, ...] = ("train", "valid")
    """Splits that the shipped models learn from. Add "test" to ship on everything, nothing is left to measure then."""
    seed: int = 0
    threads: int = Field(0, ge=0)
    """Threads for torch and numba; 0 takes all cores."""
    device: str = "cpu"
    """cpu or cuda; never chosen silently."""


class EventSettings(Section):
    """Kinds of events (the column ``event`` of the data), see core/kinds.py; shared by all models."""

    kind_weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """How much an event of each kind counts, 1 where not named: {purchase = 5.0, click = 0.5}, or one by one with
    --set events.kind_weights.purchase=5. "unknown" names events without a kind, the items of a running session among
    them. Of several kinds on one (user, item) pair the dataset keeps the one that counts most, its newest event."""
    target_kinds: tuple[str, ...] = ()
    """Kinds that training asks gat for, such as ["purchase"]; empty asks for all, by their weights. The others are
    still part of the histories."""


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
    cg_steps: int = Field(3, ge=1)
    """Conjugate gradient steps per row and epoch; three come near the exact solve."""
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


class RankerSettings(Section):
    """The ranker: a blend of the recall scores, corrected by a network, boosted trees or a linear model."""

    target: Target = "any"
    """What counts as a hit: any later event, or only those valued at or above the mean (for example high ratings)."""
    windows: int = Field(4, ge=2, le=8)
    """Label windows, the newest of the fitted events. The last one decides how much the network is used."""
    window_share: float = Field(0.1, gt=0, le=0.3)
    """Share of the fitted events in each label window; fewer windows are made where they would need above 60 %."""
    predicted_values: bool = True
    """Fit the rating model in each window and let its predicted values take part (data with values only)."""
    max_users: int = Field(8_000, ge=1)
    """Users per label window that examples are made from; a random choice where there are more."""
    epochs: int = Field(8, ge=1)
    """Most passes over the examples; the best number is chosen on held-out users."""
    learning_rate: float = Field(0.003, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    batch_users: int = Field(32, ge=1)
    """Users per step; each brings its whole merged candidate list."""
    embedding: int = Field(4, ge=1)
    """Width of each attribute's embedding."""
    cross_layers: int = Field(2, ge=1)
    """DCN-v2 cross layers."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the deep layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the deep layers' units dropped while training."""
    content_dimension: int = Field(16, ge=1)
    """Width of the attribute vectors whose cosine says how alike two items are."""
    members: tuple[Literal["network", "trees", "linear"], ...] = Field(("network",), min_length=1)
    """What corrects the blend: DCN-v2 with target attention (a repeated one has another seed), gradient-boosted trees
    (LambdaMART), a linear model; all of them see the same features of a candidate."""
    combine: Literal["average", "weighted", "stacking"] = "average"
    """Of several members. weighted: shares learned on users that the members did not see. stacking: shares that depend
    on the user's history."""
    trees: int = Field(100, ge=1)
    """Number of boosted trees."""
    tree_depth: int = Field(3, ge=1, le=6)
    """Their depth; the served graph compares all 2^depth - 1 nodes of every tree."""
    tree_rate: float = Field(0.05, gt=0)
    """Shrinkage of each tree."""


class RatingSettings(Section):
    """The rating head for explicit values: Bayesian matrix factorisation, see training/ratings/."""

    enabled: bool = False
    """Train and serve the rating model in `conch run` too; `conch train rating` does so by name."""
    dimension: int = Field(12, ge=1, le=64)
    """D, length of user and item vectors."""
    iterations: int = Field(20, ge=1)
    """Updates of users and items."""
    implicit_dimension: int = Field(48, ge=1)
    """Leading directions of who rated what at all, which the vectors' priors rest on."""
    ridge: float = Field(30.0, gt=0)
    """Penalty of the priors' coefficients."""
    folds: int = Field(4, ge=2)
    """Cross-fitting: the combiner learns from predictions that did not see the value."""
    like_at: float | None = None
    """Value from which on an item counts as liked; the mean of the values when unset."""
    hidden: int = Field(16, ge=1)
    """Width of the combiner's hidden layer."""
    epochs: int = Field(12, ge=1)
    """Passes of the combiner over the cross-fitted pairs."""
    learning_rate: float = Field(0.005, gt=0)
    weight_decay: float = Field(0.01, ge=0)


class RerankSettings(Section):
    """Variety and business rules over the ranked candidates, see serving/rerank.py."""

    method: Literal["none", "mmr", "dpp"] = "dpp"
    """mmr: each item unlike the nearest one above it. dpp: the list spans as much as it can. none: rules alone."""
    diversity: float = Field(0.0, ge=0, le=1)
    """Weight of variety against the score where a request names none; 0 leaves the ranking as it is."""
    pool: int = Field(100, ge=1)
    """Ranked candidates that compete for the places of a list; more than serving.max_k changes nothing."""
    rules: Path | None = None
    """TOML file of items to exclude, boost and cap, see pipeline/rules.py."""


class SimilarSettings(Section):
    """Similar items and users as served models, from the vectors of a recall source."""

    source: str = "gat"
    """Recall source whose vectors say how alike items and users are; the first one where this is not trained."""
    items: bool = True
    """Serve similar items."""
    users: bool = False
    """Serve similar users, for analysts: the release then holds a vector of every user, and answers name users."""


class ExportSettings(Section):
    opset: int = 20
    """ONNX opset; 20 is read by every current ONNX Runtime and TensorRT 10/11."""
    max_batch: int = Field(64, ge=1)
    """Largest batch of the served graphs."""


class ServingSettings(Section):
    """Triton, its models and its clients."""

    host: str = "127.0.0.1"
    """Address that Triton listens on. Never one that users reach: a malformed request can end the server."""
    http_port: int = Field(8000, ge=1, le=65535)
    grpc_port: int = Field(8001, ge=1, le=65535)
    metrics_port: int = Field(8002, ge=1, le=65535)
    max_k: int = Field(100, ge=1)
    """R, the most items one answer can hold."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the ONNX steps run; the python steps always run on the CPU."""
    graph_instances: int = Field(1, ge=1)
    """Copies of each ONNX step; each holds its own weights."""
    graph_threads: int = Field(1, ge=1)
    """Threads of ONNX Runtime per instance."""
    local_threads: int = Field(0, ge=0)
    """Threads of ONNX Runtime where a release answers in process (evaluation, batch jobs); 0 takes all cores."""
    python_instances: int = Field(1, ge=1)
    """Processes of each python step."""
    max_queue_delay_microseconds: int = Field(0, ge=0)
    """How long a step waits for more requests to join a batch; 0 batches only what already waits."""
    deadline_seconds: float = Field(5.0, gt=0)
    """How long the client waits for an answer."""
    start_timeout_seconds: float = Field(120.0, gt=0)
    stop_timeout_seconds: float = Field(15.0, gt=0)
    """Grace between asking Triton to stop and ending it."""
    container_image: str = "nvcr.io/nvidia/tritonserver:26.07-py3"
    """Used where the server from PyPI does not run (macOS, arm64, old glibc) and docker is there."""


class EvaluateSettings(Section):
    ks: tuple[int, ...] = (10, 20, 100)


class TuneSettings(Section):
    """The search for better settings, see training/tuning."""

    sampler: Literal["tpe", "random", "grid", "cmaes", "annealing", "nsga2"] = "tpe"
    """How settings to try are proposed."""
    trials: int = Field(30, ge=1)
    """Settings tried in all, those of earlier runs of the same study included."""
    timeout_minutes: float = Field(0.0, ge=0)
    """No new trial starts after this; 0 for no limit."""
    workers: int = Field(1, ge=1)
    """Processes that try settings at the same time; they share the threads."""
    pruner: Literal["auto", "median", "hyperband", "none"] = "auto"
    """Stops bad trials early. auto: median for a single objective, none for grid, cmaes or several objectives."""
    objectives: tuple[Literal["quality", "size", "latency"], ...] = ("quality",)
    """More than one gives a Pareto front."""
    metric: str = "ndcg@10"
    """What quality is: ndcg, recall, hit, mrr, map, precision or f1, at any k."""
    scheme: Literal["auto", "time", "folds"] = "auto"
    """time: later windows are predicted from what was before them. folds: a share of each user's events is hidden.
    auto: time where the data has usable times."""
    windows: int = Field(3, ge=1)
    """Windows (or folds) that each trial is measured on."""
    window_share: float = Field(0.1, gt=0, lt=1)
    """Share of the train and valid events in each window."""
    max_users: int = Field(5_000, ge=1)
    """Users measured per window; a random choice where there are more."""
    pick: Literal["best", "one-se", "one-se-paired"] = "best"
    """best: highest quality. one-se: the smallest model within the best's standard error. one-se-paired: within the
    standard error of the difference on the same users, which is stricter."""
    max_size_mb: float = Field(0.0, ge=0)
    """Only models up to this size are picked; 0 for no limit."""
    max_latency_ms: float = Field(0.0, ge=0)
    """Only models up to this latency at batch 1 are picked; 0 for no limit."""
    grid_points: int = Field(4, ge=2)
    """Values that a grid takes from a range without a step."""
    seed: int = 0
    """Seed of samplers, folds and users measured; models are trained with train.seed."""
