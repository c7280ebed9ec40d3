"""The rate_items step: external ids become rows. Used by Triton's model.py and in process alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.vocabulary import Vocabulary
from serving.state import read_catalogue_state

Ids = Sequence[str]


def asked_rows(item_ids: Sequence[Ids], items: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 ``(B, Q)`` and known int32 ``(B, Q)`` of padded ids; row I for unknown ones and padding."""
    rows = np.stack([items.rows(ids) for ids in item_ids])
    known = rows >= 0
    return np.where(known, rows, len(items)), known.astype(np.int32)


def read_asked_state(folder: Path) -> tuple[Vocabulary, str]:
    """The catalogue and the release id from ``repository/rate_items/<version>``."""
    catalogue, release_id = read_catalogue_state(folder)
    return catalogue.items, release_id
