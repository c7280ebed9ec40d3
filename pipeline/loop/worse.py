"""A release that is a little worse on purpose: noise on the item vectors, as a too coarse rounding would leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

from core.artifacts import Artifact, create_artifact, parent_artifact
from core.errors import GateError
from core.progress import SILENT
from core.settings import Settings
from pipeline.release import assemble_release

TRIALS, LOUDEST = 14, 2.0
ALTERED = ("item_vectors", "history_vectors")


def worse_release(
    settings: Settings, release: Artifact, quality: Callable[[Artifact], float], loss: float, *, tolerance: float = 0.25
) -> tuple[Artifact, float]:
    """A release whose quality is lower by ``loss``, relative, within ``tolerance`` of that; and its real loss.

    The noise's strength is found by halving; releases that were only tried are removed again.

    Args:
        settings: ``paths.var``.
        release: What is made worse.
        quality: Measures a release; higher is better.
        loss: Such as 0.02.
        tolerance: Share of ``loss``.

    Raises:
        GateError: No strength gives that loss.
    """
    usual = quality(release)
    low, high = 0.0, LOUDEST
    losses = []
    for _ in range(TRIALS):
        strength = (low + high) / 2
        graphs, tried = _with_noise(settings, release, strength)
        losses.append(1 - quality(tried) / usual)
        if abs(losses[-1] - loss) <= tolerance * loss:
            return tried, losses[-1]
        low, high = (strength, high) if losses[-1] < loss else (low, strength)
        for artifact in (tried, graphs):
            shutil.rmtree(artifact.path)
    raise GateError(
        "no release of the wanted quality could be made",
        expected=f"a loss of {loss:.1%} ± {tolerance * loss:.1%}",
        found=", ".join(f"{value:+.1%}" for value in losses),
    )


def _with_noise(settings: Settings, release: Artifact, strength: float) -> tuple[Artifact, Artifact]:
    """Graphs and release with noise of ``strength`` standard deviations; the same noise each time, scaled."""
    var = settings.paths.var
    graphs = parent_artifact(release, var, "graphs")
    rng = np.random.default_rng(settings.train.seed)
    parents = tuple(parent_artifact(graphs, var, kind) for kind in graphs.manifest.parents)
    with create_artifact(
        var, "graphs", settings=graphs.manifest.settings, seed=graphs.manifest.seed, parents=parents
    ) as draft:
        for record in graphs.manifest.files:
            target = draft.path / record.path
            shutil.copyfile(graphs.path / record.path, target)
            if not record.path.startswith("recall_"):
                continue
            model = onnx.load(target)
            for tensor in model.graph.initializer:
                if tensor.name in ALTERED:
                    values = numpy_helper.to_array(tensor)
                    noise = rng.standard_normal(values.shape) * values.std() * strength
                    noise[~values.any(1)] = 0  # such a row stands for no item
                    tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(values.dtype), tensor.name))
            onnx.save(model, target)
        draft.tensors |= graphs.manifest.tensors
    altered = draft.finished()
    return altered, assemble_release(settings, SILENT)
