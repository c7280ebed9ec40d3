"""The export stage: trained models in, ONNX graphs with proven parity out."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compression.candidate import served_form
from compression.store import compressed_of, load_modules
from core.artifacts import Artifact, create_artifact, latest_artifact, parent_artifact, write_json
from core.dataset import Dataset, load_dataset
from core.histories import pad
from core.progress import SILENT, Progress
from core.settings import Settings
from core.tensors import (
    ASKED_ROWS,
    EXCLUDE_ROWS,
    HISTORY_AGES,
    HISTORY_KINDS,
    HISTORY_ROWS,
    HISTORY_VALUES,
    RATE,
    RATING,
    RECALL_PREFIX,
    USER_FEATURES,
    StepSpec,
    graph_steps,
)
from export.onnx_graph import export_graph, fixed_axes
from export.parity import Comparison, Feeds, as_report, check_parity, run_torch
from export.similar import similar_extras, similar_graphs
from training.models.ranker import load_ranker
from training.models.recall import RecallModel, load_model
from training.ratings.store import KIND as RATING_KIND
from training.ratings.store import load_rating

ODD_BATCH = 7
ASKED_ITEMS = 23
"""Items per user in a request for ratings."""


def export_models(settings: Settings, progress: Progress = SILENT) -> Artifact:
    """Exports the newest ranker with the recall models and dataset it was trained on.

    Where ``compress.enabled``, the newest compressed models made from them take their places.
    So it does the newest rating model where that was trained on the same splits of the same dataset. Writes
    recall_<source>.onnx, rank.onnx, nearest_<noun>.onnx, rating.onnx and parity.json.

    Raises:
        ArtifactError: Nothing trained yet.
        ExportError: A graph that does not export, or that differs from its module.
    """
    var = settings.paths.var
    ranker = latest_artifact(var, "ranker")
    last = load_ranker(ranker)
    sources = last.shape.sources
    data, *recall = (parent_artifact(ranker, var, kind) for kind in ("dataset", *sources))
    dataset = load_dataset(data)
    rating = matching_rating(ranker, settings)
    models = dict(zip(sources, map(load_model, recall), strict=True))
    histories = dataset.histories(settings.train.fit)
    compressed = (compressed_of(ranker, var),) if settings.compress.enabled else ()
    smaller = {step: module for artifact in compressed for step, module in load_modules(artifact).items()}
    originals: list[nn.Module] = [*models.values(), last]
    served = [
        (spec, smaller.get(spec.name, module)) for spec, module in zip(graph_steps(sources), originals, strict=True)
    ]
    served += similar_graphs(settings.similar, models, histories, last.shape.returned)
    served += [(RATING, load_rating(artifact)) for artifact in rating]
    batches = sorted({1, 2, ODD_BATCH, settings.export.max_batch})
    feeds = [sample_requests(dataset, settings, batch) for batch in batches]
    with create_artifact(
        var,
        "graphs",
        settings={name: getattr(settings, name).model_dump(mode="json") for name in ("export", "similar")},
        seed=settings.train.seed,
        parents=(data, *recall, ranker, *rating, *compressed),
    ) as draft:
        results: list[Comparison] = []
        sizes: dict[str, int] = {}
        with progress.bar("export", len(served)) as bar:
            for spec, module in served:
                path = draft.path / f"{spec.name}.onnx"
                example = {t.name: torch.from_numpy(_example(feeds)[t.name]) for t in spec.inputs}
                limits = {"opset": settings.export.opset, "max_batch": settings.export.max_batch}
                graph = served_form(module, "onnxruntime")
                export_graph(graph, spec, example, path, **limits)
                inexact = isinstance(graph, RecallModel) and graph.finds_best
                results += check_parity(
                    graph if inexact else module, spec, path, [_inputs_of(spec, feed) for feed in feeds]
                )
                for feed in feeds:
                    feed.update(_outputs_of(module, spec, feed))
                sizes |= fixed_axes(path, spec)
                bar.advance(note=spec.name)
        write_json(draft.path / "parity.json", as_report(results))
        extras = (*similar_extras(settings.similar), *(RATE.name for _ in rating))
        draft.tensors |= {"sizes": sizes, "n_items": dataset.n_items, "sources": sources, "extras": extras}
        draft.metrics |= {
            "parity_worst": {
                name: max(r.worst for r in results if r.output == name)
                for name in dict.fromkeys(r.output for r in results)
            },
            "batches": batches,
        }
    done = draft.finished()
    size_mb = sum(record.size_bytes for record in done.manifest.files) / 1e6
    progress.say(
        f"export: {len(served)} graphs, {size_mb:.1f} MB, parity with torch at batch {', '.join(map(str, batches))}, "
        f"{done.manifest.seconds:.1f} s"
    )
    return done


def matching_rating(ranker: Artifact, settings: Settings) -> tuple[Artifact, ...]:
    """The newest rating model, if it has learned from the same splits of the same dataset as the ranker; else none."""
    folder = settings.paths.var / "artifacts" / RATING_KIND
    if not any(folder.glob("[0-9]*/manifest.json")):
        return ()
    newest = latest_artifact(settings.paths.var, RATING_KIND)
    same_data = newest.manifest.parents["dataset"] == ranker.manifest.parents["dataset"]
    same_fit = newest.manifest.settings["train"]["fit"] == ranker.manifest.settings["train"]["fit"]
    return (newest,) if same_data and same_fit else ()


def sample_requests(dataset: Dataset, settings: Settings, batch: int) -> Feeds:
    """Real users as graph inputs: the one with the longest history, an empty one, then evenly spread ones."""
    histories = dataset.histories(settings.train.fit)
    by_length = np.argsort(-histories.lengths, kind="stable")
    users = by_length[np.linspace(0, len(by_length) - 1, batch).astype(int)]
    padded = pad(histories.select(users), dataset.n_items)
    codes = dataset.user_features.codes[users].astype(np.int64)
    if batch > 1:  # an unknown user: nothing but padding
        padded.rows[-1], padded.exclude[-1] = dataset.n_items, dataset.n_items
        padded.ages[-1], padded.values[-1], padded.kinds[-1] = 0, 0, 0
        codes[-1] = 0
    asked = np.arange(batch * ASKED_ITEMS).reshape(batch, ASKED_ITEMS) % (dataset.n_items + 1)  # unknown ones too
    return {
        ASKED_ROWS.name: asked,
        HISTORY_ROWS.name: padded.rows,
        HISTORY_AGES.name: padded.ages,
        HISTORY_VALUES.name: padded.values,
        HISTORY_KINDS.name: padded.kinds,
        EXCLUDE_ROWS.name: padded.exclude,
        USER_FEATURES.name: codes if codes.shape[1] else np.zeros((batch, 1), dtype=np.int64),
    }


def _example(feeds: list[Feeds]) -> Feeds:
    """The feed with batch 2: two of everything, so that the exporter takes no axis for a constant."""
    return feeds[1] if len(feeds) > 1 else feeds[0]


def _inputs_of(spec: StepSpec, feed: Feeds) -> Feeds:
    return {tensor.name: feed[tensor.name] for tensor in spec.inputs}


def _outputs_of(module: nn.Module, spec: StepSpec, feed: Feeds) -> Feeds:
    if not spec.name.startswith(RECALL_PREFIX):
        return {}  # nothing is computed from it
    return dict(zip((tensor.name for tensor in spec.outputs), run_torch(module.eval(), spec, feed), strict=True))
