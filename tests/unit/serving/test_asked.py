from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ReleaseError
from core.vocabulary import Vocabulary
from serving.asked import asked_rows
from serving.rate import LocalRater
from tests.synthetic_release import write_synthetic_release


def test_unknown_and_padded_items_become_the_row_behind_the_last() -> None:
    rows, known = asked_rows([["b", "nothing"], ["a", ""]], Vocabulary(["a", "b"]))
    assert rows.tolist() == [[1, 2], [0, 2]]
    assert known.tolist() == [[1, 0], [1, 0]]
    assert (rows.dtype, known.dtype) == (np.int64, np.int32)


def test_release_without_a_rating_model_says_how_to_get_one(tmp_path: Path) -> None:
    write_synthetic_release(tmp_path)
    with pytest.raises(ReleaseError, match="conch train rating"):
        LocalRater(tmp_path)
