"""The base of all sections, and words that several of them use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

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
