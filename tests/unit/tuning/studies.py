"""A study without models: a known hill instead of training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import TrainingError
from core.settings import Settings, load_settings
from training.tuning.objective import Measurement, Report
from training.tuning.ranges import parse_range
from training.tuning.space import SearchSpace

SPACE = {"mf.dimension": "int:1:64", "mf.popularity": "float:0:1", "mf.solver": "choice:numba,torch"}


def space_of(texts: Mapping[str, str] = SPACE) -> SearchSpace:
    """A space from texts."""
    return SearchSpace({key: parse_range(key, text) for key, text in sorted(texts.items())})


def settings_in(folder: Path, *overrides: str) -> Settings:
    """Default settings that write into ``folder``."""
    return load_settings((), (f'paths.var="{folder}"', *overrides))


@dataclass(frozen=True)
class HillJob:
    """Quality is highest at dimension 24, popularity 0.3, solver torch; size is the dimension.

    Attributes:
        settings: Only [tune] and paths matter.
        trace: File that gets a line per measurement.
        seconds: How long one takes.
        broken_below: Dimensions below this have no finite quality.
        broken_at_first: Nor have the settings as they are.
        refused_above: Dimensions above this are an error.
    """

    settings: Settings
    trace: Path | None = None
    seconds: float = 0.0
    broken_below: int = 0
    broken_at_first: bool = False
    refused_above: int = 1_000
    model: str = "mf"
    metric: str = "height"
    steps: int = 3

    def build(self) -> Hill:
        return Hill(self)


class Hill:
    """See :class:`HillJob`."""

    scheme = "a hill"

    def __init__(self, job: HillJob) -> None:
        self.job = job
        self.anchored: Measurement | None = None

    def anchor(self, baseline: Measurement) -> None:
        self.anchored = baseline

    def measure(self, values: Mapping[str, Any], report: Report) -> Measurement:
        job = self.job
        if job.trace:
            with job.trace.open("a") as stream:
                stream.write(f"{sorted(values.items())}\n")
        time.sleep(job.seconds)
        dimension = values.get("mf.dimension", 8)
        if dimension > job.refused_above:
            raise TrainingError("training of mf diverged", where="step 3", found="nan")
        height = -abs(math.log2(dimension / 24)) - abs(values.get("mf.popularity", 0.9) - 0.3)
        height -= 0.5 * (values.get("mf.solver", "numba") != "torch")
        for step in range(1, job.steps + 1):
            report(step, height)
        broken = job.broken_at_first if not values else dimension < job.broken_below
        quality = math.nan if broken else height
        return Measurement({"quality": quality, "size_bytes": float(dimension)}, 0.1, {"steps": job.steps})
