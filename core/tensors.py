"""Every tensor that is served: name, dtype, shape and meaning, declared once.

The ONNX export, the rendered config.pbtxt, the steps, the gateway and the client all read this file.
Shapes leave out the batch axis B. A string names an axis (see ``core``); ``-1`` in Triton's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

EXPLANATIONS = 3
"""Past items given as the reason for each recommended item (axis ``E3``)."""

PAD_ID = ""
"""Stands for "no item" in string tensors; never an external id."""


class DType(Enum):
    """Tensor element types in Conch, with their numpy, ONNX and Triton names."""

    INT64 = "INT64"
    INT32 = "INT32"
    FP32 = "FP32"
    STRING = "STRING"

    @property
    def numpy(self) -> np.dtype:
        return np.dtype({"INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "STRING": np.object_}[self.value])

    @property
    def triton(self) -> str:
        """Name in config.pbtxt."""
        return f"TYPE_{self.value}"

    @property
    def wire(self) -> str:
        """Name in the KServe v2 protocol, which calls strings BYTES."""
        return "BYTES" if self is DType.STRING else self.value


Axis = int | str


@dataclass(frozen=True)
class TensorSpec:
    """One served tensor.

    Attributes:
        name: The tensor's name in every graph, config and request.
        dtype: Element type.
        shape: Axes after the batch axis; a number is fixed, a string is a named axis.
        meaning: One line for docs and generated comments.
        optional: A request may leave it out.
    """

    name: str
    dtype: DType
    shape: tuple[Axis, ...]
    meaning: str
    optional: bool = False

    def dims(self, sizes: dict[str, int] | None = None) -> list[int]:
        """Axes as numbers: those in ``sizes`` are fixed, other named ones are -1 (dynamic)."""
        known = sizes or {}
        return [axis if isinstance(axis, int) else known.get(axis, -1) for axis in self.shape]


# --- the request -------------------------------------------------------------------------------
USER_ID = TensorSpec("user_id", DType.STRING, (1,), "external user id; unknown ids are welcome")
SESSION_ITEMS = TensorSpec(
    "session_items", DType.STRING, ("S",), "newest items of this session, oldest first; '' is none", optional=True
)
EXCLUDE_ITEMS = TensorSpec(
    "exclude_items", DType.STRING, ("X",), "items that must not come back; '' is none", optional=True
)
USER_ATTRIBUTES = TensorSpec(
    "user_attributes",
    DType.STRING,
    ("A",),
    "attributes as name=value, for this request alone; '' is none",
    optional=True,
)
K_RETURNED = TensorSpec("k", DType.INT32, (1,), "how many items to return")
DIVERSITY = TensorSpec(
    "diversity",
    DType.FP32,
    (1,),
    "0 ranks by score alone, 1 by variety alone; the release's default where it is left out",
    optional=True,
)
LIKE_ITEMS = TensorSpec("items", DType.STRING, ("S",), "items to find similar ones to; '' is none")

# --- context: strings become rows ----------------------------------------------------------------
HISTORY_ROWS = TensorSpec(
    "history_rows", DType.INT64, ("L",), "item rows, newest first, padded at the end with row I (n_items)"
)
HISTORY_AGES = TensorSpec(
    "history_ages", DType.FP32, ("L",), "days before the user's newest event, >= 0; 0 where padded"
)
HISTORY_VALUES = TensorSpec(
    "history_values", DType.FP32, ("L",), "standardised event value (rating); 0 where unknown or padded"
)
HISTORY_KINDS = TensorSpec(
    "history_kinds", DType.INT64, ("L",), "code of the event's kind (click, purchase, …); 0 where unknown or padded"
)
EXCLUDE_ROWS = TensorSpec(
    "exclude_rows", DType.INT64, ("X",), "rows of all seen and excluded items, padded with row I (n_items)"
)
USER_FEATURES = TensorSpec("user_features", DType.INT64, ("F",), "user attribute codes, 0 is unknown")

# --- recall: best first, ties to the lower row ---------------------------------------------------
RECALL_PREFIX = "recall_"
"""Name of a recall step without its source."""


def recall_tensors(source: str) -> tuple[TensorSpec, TensorSpec]:
    """Candidate rows and scores of one recall source (mf, gat, …)."""
    return (
        TensorSpec(f"{source}_rows", DType.INT64, ("K",), f"candidate rows by {source}"),
        TensorSpec(f"{source}_scores", DType.FP32, ("K",), "their scores; <= MASKED marks no candidate"),
    )


# --- rank ----------------------------------------------------------------------------------------
RANKED_ROWS = TensorSpec("ranked_rows", DType.INT64, ("R",), "merged candidates, best first, without repeats")
RANKED_SCORES = TensorSpec("ranked_scores", DType.FP32, ("R",), "ranking scores; <= MASKED marks no item")
REASON_ROWS = TensorSpec(
    "reason_rows", DType.INT64, ("R", EXPLANATIONS), "history rows with the most attention; row I is none"
)
REASON_WEIGHTS = TensorSpec(
    "reason_weights", DType.FP32, ("R", EXPLANATIONS), "their attention weights, 0..1, 0 where none"
)
FINAL_ORDER = TensorSpec(
    "final_order", DType.INT32, (1,), "1 where the order stands: nothing is re-ranked or capped", optional=True
)

# --- similar users -------------------------------------------------------------------------------
NEAREST_USER_ROWS = TensorSpec("nearest_user_rows", DType.INT64, ("R",), "users with the closest vectors, best first")
NEAREST_USER_SCORES = TensorSpec("nearest_user_scores", DType.FP32, ("R",), "their cosines; <= MASKED marks no user")

# --- the response --------------------------------------------------------------------------------
ITEM_IDS = TensorSpec("item_ids", DType.STRING, ("k",), "external item ids, best first; '' pads short lists")
SCORES = TensorSpec("scores", DType.FP32, ("k",), "ranking scores (unbounded) or cosines; 0 where padded")
REASON_IDS = TensorSpec("reason_ids", DType.STRING, ("k", EXPLANATIONS), "the user's own items behind each item")
REASON_SHARES = TensorSpec("reason_shares", DType.FP32, ("k", EXPLANATIONS), "their attention weights, 0..1")
USER_IDS = TensorSpec("user_ids", DType.STRING, ("k",), "external user ids, best first; '' pads short lists")
RELEASE = TensorSpec("release", DType.STRING, (1,), "id of the release that answered")

# --- ratings: a model of its own beside the recommendations -----------------------------------------
ASKED_ITEMS = TensorSpec("item_ids", DType.STRING, ("Q",), "external item ids to rate; '' pads")
ASKED_ROWS = TensorSpec("item_rows", DType.INT64, ("Q",), "their rows; row I (n_items) where unknown or padded")
ASKED_KNOWN = TensorSpec("item_known", DType.INT32, ("Q",), "1 where the catalogue has the item, else 0")
RATINGS = TensorSpec("ratings", DType.FP32, ("Q",), "expected value on the scale of the data")
LIKE_PROBABILITIES = TensorSpec("like_probabilities", DType.FP32, ("Q",), "probability of being liked, 0..1")

MASKED = -1e30
"""Score of a forbidden or missing item. Finite, since infinities turn to NaN in 0 * inf and in fp16 casts."""


@dataclass(frozen=True)
class StepSpec:
    """One step of the ensemble: a model's name, backend and signature."""

    name: str
    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


HISTORY = (HISTORY_ROWS, HISTORY_AGES, HISTORY_VALUES, HISTORY_KINDS)

CONTEXT = StepSpec(
    "context",
    "python",
    # a request for similar items names no user
    (replace(USER_ID, optional=True), SESSION_ITEMS, EXCLUDE_ITEMS, USER_ATTRIBUTES),
    (*HISTORY, EXCLUDE_ROWS, USER_FEATURES),
)
RANK = "rank"
"""Name of the rank step; its inputs depend on the sources."""
RESPOND = StepSpec(
    "respond",
    "python",
    (K_RETURNED, DIVERSITY, RANKED_ROWS, RANKED_SCORES, REASON_ROWS, REASON_WEIGHTS, FINAL_ORDER),
    (ITEM_IDS, SCORES, REASON_IDS, REASON_SHARES, RELEASE),
)
ENSEMBLE = StepSpec(
    "recommend",
    "ensemble",
    (USER_ID, SESSION_ITEMS, EXCLUDE_ITEMS, USER_ATTRIBUTES, K_RETURNED, DIVERSITY),
    RESPOND.outputs,
)

NEAREST_ITEMS = StepSpec(
    "nearest_items",
    "onnxruntime",
    (HISTORY_ROWS, EXCLUDE_ROWS),
    (RANKED_ROWS, RANKED_SCORES, REASON_ROWS, REASON_WEIGHTS, FINAL_ORDER),
)
NEAREST_USERS = StepSpec("nearest_users", "onnxruntime", HISTORY, (NEAREST_USER_ROWS, NEAREST_USER_SCORES))
NAME_USERS = StepSpec(
    "name_users",
    "python",
    (USER_ID, K_RETURNED, NEAREST_USER_ROWS, NEAREST_USER_SCORES),
    (USER_IDS, SCORES, RELEASE),
)
SIMILAR_ITEMS = StepSpec("similar_items", "ensemble", (LIKE_ITEMS, EXCLUDE_ITEMS, K_RETURNED), RESPOND.outputs)
SIMILAR_USERS = StepSpec("similar_users", "ensemble", (USER_ID, SESSION_ITEMS, K_RETURNED), NAME_USERS.outputs)


def recall_step(source: str) -> StepSpec:
    """The leaf that finds candidates by one source. All sources have the same inputs."""
    return StepSpec(
        f"{RECALL_PREFIX}{source}", "onnxruntime", (*HISTORY, EXCLUDE_ROWS, USER_FEATURES), recall_tensors(source)
    )


def rank_step(sources: Sequence[str]) -> StepSpec:
    """The leaf that merges the candidates of ``sources`` and orders them."""
    candidates = tuple(tensor for source in sources for tensor in recall_tensors(source))
    return StepSpec(
        RANK,
        "onnxruntime",
        (HISTORY_ROWS, HISTORY_AGES, HISTORY_VALUES, USER_FEATURES, *candidates),
        (RANKED_ROWS, RANKED_SCORES, REASON_ROWS, REASON_WEIGHTS),
    )


def graph_steps(sources: Sequence[str]) -> tuple[StepSpec, ...]:
    """The steps that compute, in order."""
    return (*map(recall_step, sources), rank_step(sources))


RATE_ITEMS = StepSpec("rate_items", "python", (ASKED_ITEMS,), (ASKED_ROWS, ASKED_KNOWN, RELEASE))
RATING = StepSpec(
    "rating",
    "onnxruntime",
    (HISTORY_ROWS, HISTORY_VALUES, USER_FEATURES, ASKED_ROWS),
    (RATINGS, LIKE_PROBABILITIES),
)
RATE = StepSpec(
    "rate",
    "ensemble",
    (USER_ID, SESSION_ITEMS, EXCLUDE_ITEMS, USER_ATTRIBUTES, ASKED_ITEMS),
    (RATINGS, LIKE_PROBABILITIES, ASKED_KNOWN, RELEASE),
)
