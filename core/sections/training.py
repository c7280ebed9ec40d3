"""Training, measuring and searching, whatever the model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from core.sections.base import Section, Split


class TrainSettings(Section):
    fit: tuple[Split, ...] = ("train", "valid")
    """Splits that the shipped models learn from. Add "test" to ship on everything, nothing is left to measure then."""
    seed: int = 0
    threads: int = Field(0, ge=0)
    """Threads for torch and numba; 0 takes all cores."""
    device: str = "cpu"
    """cpu or cuda; never chosen silently."""
    workers: int = Field(1, ge=1)
    """Processes that train one model together (mf, gat, ranker); they share the threads. See training/distributed."""
    backend: Literal["auto", "gloo", "nccl"] = "auto"
    """How workers exchange tensors. auto: nccl for those on a GPU, gloo for those on the CPU."""
    synchronisation: Literal["every_step", "periodic"] = "every_step"
    """every_step: gradients are added up, each step is that of a single process. periodic: workers step alone and
    average their weights now and then (local SGD); mf, a closed form in halves, always works together."""
    average_every: int = Field(8, ge=1)
    """Steps between two averages with synchronisation=periodic."""
    accumulate: int = Field(1, ge=1)
    """Parts that a worker's share of a step is computed in, one after another: less memory, the same step."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of large products in gat and the ranker while training; weights and sums stay float32."""
    restarts: int = Field(3, ge=0)
    """How often workers start again from the newest checkpoint after one of them was killed."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.backend == "nccl" and not self.device.startswith("cuda"):
            raise ValueError("train.backend=nccl needs train.device=cuda")
        if self.synchronisation == "periodic" and self.workers == 1:
            raise ValueError("train.synchronisation=periodic needs train.workers above 1")
        return self


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
