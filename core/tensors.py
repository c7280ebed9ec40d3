"""Every tensor that is served: name, dtype, shape and meaning, declared once.

The ONNX export, the rendered config.pbtxt, the steps, the gateway and the client all read this file.
Shapes leave out the batch axis B. A string names an axis (see ``core``); ``-1`` in Triton's words.
"""

from __future__ import annotations

from dataclasses import dataclass
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
K_RETURNED = TensorSpec("k", DType.INT32, (1,), "how many items to return")

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
EXCLUDE_ROWS = TensorSpec(
    "exclude_rows", DType.INT64, ("X",), "rows of all seen and excluded items, padded with row I (n_items)"
)
USER_FEATURES = TensorSpec("user_features", DType.INT64, ("F",), "user attribute codes, 0 is unknown")

# --- recall: best first, ties to the lower row ---------------------------------------------------
MF_ROWS = TensorSpec("mf_rows", DType.INT64, ("K",), "candidate rows by matrix factorisation")
MF_SCORES = TensorSpec("mf_scores", DType.FP32, ("K",), "their scores; <= MASKED marks no candidate")
GAT_ROWS = TensorSpec("gat_rows", DType.INT64, ("K",), "candidate rows by graph attention")
GAT_SCORES = TensorSpec("gat_scores", DType.FP32, ("K",), "their scores; <= MASKED marks no candidate")

# --- rank ----------------------------------------------------------------------------------------
RANKED_ROWS = TensorSpec("ranked_rows", DType.INT64, ("R",), "merged candidates, best first, without repeats")
RANKED_SCORES = TensorSpec("ranked_scores", DType.FP32, ("R",), "ranking scores; <= MASKED marks no item")
REASON_ROWS = TensorSpec(
    "reason_rows", DType.INT64, ("R", EXPLANATIONS), "history rows with the most attention; row I is none"
)
REASON_WEIGHTS = TensorSpec(
    "reason_weights", DType.FP32, ("R", EXPLANATIONS), "their attention weights, 0..1, 0 where none"
)

# --- the response --------------------------------------------------------------------------------
ITEM_IDS = TensorSpec("item_ids", DType.STRING, ("k",), "external item ids, best first; '' pads short lists")
SCORES = TensorSpec("scores", DType.FP32, ("k",), "ranking scores (unbounded); 0 where padded")
REASON_IDS = TensorSpec("reason_ids", DType.STRING, ("k", EXPLANATIONS), "the user's own items behind each item")
REASON_SHARES = TensorSpec("reason_shares", DType.FP32, ("k", EXPLANATIONS), "their attention weights, 0..1")
RELEASE = TensorSpec("release", DType.STRING, (1,), "id of the release that answered")

MASKED = -1e30
"""Score of a forbidden or missing item. Finite, since infinities turn to NaN in 0 * inf and in fp16 casts."""


@dataclass(frozen=True)
class StepSpec:
    """One step of the ensemble: a model's name, backend and signature."""

    name: str
    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


HISTORY = (HISTORY_ROWS, HISTORY_AGES, HISTORY_VALUES)

CONTEXT = StepSpec(
    "context", "python", (USER_ID, SESSION_ITEMS, EXCLUDE_ITEMS), (*HISTORY, EXCLUDE_ROWS, USER_FEATURES)
)
RECALL_MF = StepSpec("recall_mf", "onnxruntime", (*HISTORY, EXCLUDE_ROWS), (MF_ROWS, MF_SCORES))
RECALL_GAT = StepSpec("recall_gat", "onnxruntime", (*HISTORY, EXCLUDE_ROWS), (GAT_ROWS, GAT_SCORES))
RANK = StepSpec(
    "rank",
    "onnxruntime",
    (*HISTORY, USER_FEATURES, MF_ROWS, MF_SCORES, GAT_ROWS, GAT_SCORES),
    (RANKED_ROWS, RANKED_SCORES, REASON_ROWS, REASON_WEIGHTS),
)
RESPOND = StepSpec(
    "respond",
    "python",
    (K_RETURNED, RANKED_ROWS, RANKED_SCORES, REASON_ROWS, REASON_WEIGHTS),
    (ITEM_IDS, SCORES, REASON_IDS, REASON_SHARES, RELEASE),
)
STEPS = (CONTEXT, RECALL_MF, RECALL_GAT, RANK, RESPOND)
"""The ensemble in order; the two recall steps run in parallel."""

ENSEMBLE = StepSpec("recommend", "ensemble", (USER_ID, SESSION_ITEMS, EXCLUDE_ITEMS, K_RETURNED), RESPOND.outputs)


def step(name: str) -> StepSpec:
    """The step called ``name``. Raises KeyError for a name that is no step."""
    return {spec.name: spec for spec in STEPS}[name]
