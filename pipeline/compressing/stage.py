"""The compress stage: trained models in, the smallest chain that meets the goal out, and everything that was tried."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from compression.candidate import Candidate
from compression.judge import ask
from compression.refit import Chain, as_recorded, judging_chain
from compression.registry import COMPRESSORS, Task, compressor_of
from compression.search import Outcome, Search
from compression.store import KIND, load_modules, save_candidates
from core.artifacts import Artifact, create_artifact, latest_artifact, parent_artifact, write_json
from core.dataset import Dataset, load_dataset
from core.errors import CompressionError
from core.progress import SILENT, Progress
from core.settings import Settings
from core.tensors import RANK
from pipeline.compressing.facts import facts_of_outcome
from pipeline.compressing.page import write_pages
from pipeline.compressing.served import measure_served
from training.models.ranker import load_ranker
from training.models.recall import load_model
from training.stage import use_hardware

REPORT = "report.json"


class GoalMissedError(CompressionError):
    """No candidate meets the goal; the report of what was tried is written."""


def compress(settings: Settings, progress: Progress = SILENT) -> Artifact:
    """Compresses the newest ranker's chain.

    Candidates are judged by models refitted without the split that judges; what is chosen is then made from the
    shipped models.

    Raises:
        ArtifactError: Nothing trained yet.
        CompressionError: Nobody to judge by.
        GoalMissedError: No candidate meets the goal.
    """
    started, var = time.perf_counter(), settings.paths.var
    use_hardware(settings)
    ranker = latest_artifact(var, "ranker")
    recorded = as_recorded(settings, ranker)
    last = load_ranker(ranker)
    data = parent_artifact(ranker, var, "dataset")
    sources = {source: parent_artifact(ranker, var, source) for source in last.shape.sources}
    dataset, fit = load_dataset(data), tuple(ranker.manifest.settings["train"]["fit"])
    shipped = Chain({source: load_model(artifact) for source, artifact in sources.items()}, last, fit)
    outcome, users = search(shipped, sources, dataset, recorded, progress)
    if not outcome.chosen:
        report = facts_of_outcome(outcome, settings.compress, users, time.perf_counter() - started)
        path = var / f"compress-{outcome.goal.name}" / REPORT
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report)
        write_pages(report, path.parent)
        raise GoalMissedError(
            f"no compressed chain meets the goal {outcome.goal.name}",
            where=str(path),
            expected=f"at least {outcome.goal.tables_ratio:g} times smaller tables, NDCG@10 loss up to "
            f"{outcome.goal.ndcg_loss:.1%}, overlap {outcome.goal.overlap:g}",
            found=outcome.why,
            next_step="try another --goal, or serve fp32 with --set compress.enabled=false",
        )
    chosen = make_chosen(outcome.chosen, shipped, dataset, recorded, progress)
    served = measure_served(shipped.modules(), chosen, dataset, recorded, progress)
    report = facts_of_outcome(outcome, settings.compress, users, time.perf_counter() - started, served)
    done = store_chosen(settings, recorded, chosen, (data, *sources.values(), ranker), report)
    check_reloaded(done, chosen, shipped)
    before = sum(asdict(one)["tables"] for step, one in outcome.originals.items() if step != RANK)
    after = sum(one.sizes.vectors for one in chosen if one.step != RANK)
    together = outcome.together
    assert together is not None  # something was chosen
    progress.say(
        f"compress: {outcome.goal.name}, "
        + ", ".join(f"{one.step} {one.name}" for one in chosen)
        + f"; tables {before / after:.1f} times smaller, NDCG@10 {together.relative.mean:+.2%} "
        f"[{together.relative.low:+.2%}, {together.relative.high:+.2%}], overlap {together.overlap:.3f} "
        f"on {users:,} users, {time.perf_counter() - started:.1f} s"
    )
    return done


def search(
    shipped: Chain, sources: dict[str, Artifact], dataset: Dataset, settings: Settings, progress: Progress
) -> tuple[Outcome, int]:
    """The outcome, and by how many users it was judged."""
    chain = judging_chain(shipped, sources, dataset, settings, progress)
    rng = np.random.default_rng(settings.compress.seed)
    asked = ask(dataset, chain.fit, settings.compress.split, settings.compress.max_users, rng)
    if len(asked.users) == 0:
        raise CompressionError(
            "nobody to judge candidates by",
            where=f"split {settings.compress.split}",
            expected="users with events before it and new ones within it",
            next_step="choose another split with --set compress.split=train, or a later data.train_until",
        )
    return Search(chain, dataset, asked, settings, progress).run(), len(asked.users)


def store_chosen(
    settings: Settings,
    recorded: Settings,
    chosen: list[Candidate],
    parents: tuple[Artifact, ...],
    report: dict[str, Any],
) -> Artifact:
    """The artefact ``compressed``.

    Args:
        settings: Section ``compress``.
        recorded: Settings that the chain was trained with.
        chosen: One candidate per step, made from the shipped models.
        parents: Dataset, recall models, ranker.
        report: What was tried, see ``pipeline.compressing.facts``.
    """
    with create_artifact(
        settings.paths.var,
        KIND,
        settings={
            "compress": settings.compress.model_dump(mode="json"),
            "train": recorded.train.model_dump(mode="json"),
        },
        seed=settings.compress.seed,
        parents=parents,
    ) as draft:
        draft.tensors |= save_candidates(chosen, draft.path)
        draft.metrics |= {"why": report["chosen"]["why"], "together": report["chosen"]["together"]}
        write_json(draft.path / REPORT, report)
        write_pages(report, draft.path)
    return draft.finished()


def make_chosen(
    names: Mapping[str, str], shipped: Chain, dataset: Dataset, settings: Settings, progress: Progress
) -> list[Candidate]:
    """The chosen candidates, made from the shipped models; the ranker's last, over the compressed recall models."""
    made: list[Candidate] = []
    recall: dict[str, nn.Module] = {}
    for source, model in shipped.recall.items():
        step = f"recall_{source}"
        task = Task(step, model, dataset, shipped.fit, settings, {}, progress)
        made.append(COMPRESSORS[str(compressor_of(step))].make(task, names[step]))
        recall[source] = made[-1].module
    if RANK in names:
        task = Task(RANK, shipped.ranker, dataset, shipped.fit, settings, recall, progress)
        made.append(COMPRESSORS[str(compressor_of(RANK))].make(task, names[RANK]))
    return made


def check_reloaded(artifact: Artifact, chosen: list[Candidate], shipped: Chain) -> None:
    """What was written is what was judged: every tensor of the module read back equals that of the one in memory.

    Raises:
        CompressionError: It is not.
    """
    modules = load_modules(artifact)
    for one in chosen:
        found, wanted = modules[one.step].state_dict(), one.module.state_dict()
        different = [
            name for name, tensor in wanted.items() if name not in found or not torch.equal(found[name], tensor)
        ]
        if different or found.keys() != wanted.keys():
            raise CompressionError(
                f"the stored {one.step} is not the one that was judged",
                where=str(artifact.path),
                found=", ".join(different[:5]) or "other tensors",
            )
