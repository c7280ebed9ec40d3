"""Where the time goes by step, from Triton's statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tritonclient.grpc as triton_grpc

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class StepTimes:
    """Sums over a server's life, or means over a span; see :meth:`since`.

    Attributes:
        name: The model.
        requests: Requests that it answered.
        milliseconds: By part (queue, compute_input, compute_infer, compute_output), of all of them together.
    """

    name: str
    requests: int
    milliseconds: dict[str, float]

    def since(self, before: StepTimes | None) -> StepTimes:
        """Means per request since an earlier reading."""
        count = self.requests - (before.requests if before else 0)
        spent = {
            part: round((ms - (before.milliseconds[part] if before else 0.0)) / max(1, count), 4)
            for part, ms in self.milliseconds.items()
        }
        return StepTimes(self.name, count, spent)


def step_times(address: str) -> dict[str, StepTimes]:
    """Statistics of every loaded model, versions added up.

    Args:
        address: gRPC of Triton.
    """
    with triton_grpc.InferenceServerClient(address) as client:
        statistics: Any = client.get_inference_statistics()
    found: dict[str, StepTimes] = {}
    for model in statistics.model_stats:
        stats = model.inference_stats
        spent = {part: getattr(stats, part).ns / 1e6 for part in PARTS}
        known = found.get(model.name)
        if known is not None:
            spent = {part: ms + known.milliseconds[part] for part, ms in spent.items()}
        found[model.name] = StepTimes(model.name, int(stats.success.count) + (known.requests if known else 0), spent)
    return found
