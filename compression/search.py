"""Searches the combinations of candidates for one that meets the goal, keeps all, and says why one is chosen."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from compression.candidate import Candidate, Pass, Sizes, Unchanged
from compression.goals import GOALS, Goal
from compression.judge import Asked, Proposed, Verdict, propose, rank, slices, verdict, verdict_within
from compression.refit import Chain
from compression.registry import COMPRESSORS, Task, compressor_of
from core.dataset import Dataset
from core.progress import Progress
from core.settings import Settings
from core.tensors import RANK
from training.tuning.costs import measure_latency

SHORTLIST = 8
"""Candidates per step that combinations are made of."""
COMBINATIONS = 16
"""Combinations that are ranked end to end."""
QUANTIZED = ("int4", "int8", "tiers", "blocks")


@dataclass(frozen=True)
class Judged:
    """A candidate of one step, without its module.

    Attributes:
        step: Served step.
        name: Name of the candidate.
        parent: Name of its parent.
        sizes: Bytes as stored.
        passes: How it was made.
        unchanged: What was left alone.
        metrics: What its compressor measured.
        alone: Of a recall step: its own lists against fp32's. Of the ranker: end to end, recall as chosen.
        latency_ratio: Median at batch 1 against the original, in torch, in turns; 0 where not timed.
    """

    step: str
    name: str
    parent: str
    sizes: Sizes
    passes: tuple[Pass, ...]
    unchanged: tuple[Unchanged, ...]
    metrics: Mapping[str, Any]
    alone: Verdict
    latency_ratio: float = 0.0


@dataclass(frozen=True)
class Combination:
    """One candidate per recall step, and the ranker in fp32, judged end to end.

    Attributes:
        names: Candidate by step.
        ratio: Recall tables, fp32 against these.
        together: End to end.
        missed: Limits of the goal that are not met; empty where all are.
    """

    names: Mapping[str, str]
    ratio: float
    together: Verdict
    missed: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """All that a search found.

    Attributes:
        goal: What was asked.
        originals: Sizes in fp32 by step.
        candidates: Every candidate judged, by step, mildest first; the original is the first.
        combinations: Those judged end to end, best first.
        chosen: Candidate by step; empty where none meets the goal.
        together: The chosen ones end to end, ranker included.
        why: One sentence.
        slices: The chosen ones end to end, for groups of users: how many they are, and the verdict.
    """

    goal: Goal
    originals: Mapping[str, Sizes]
    candidates: Mapping[str, tuple[Judged, ...]]
    combinations: tuple[Combination, ...]
    chosen: Mapping[str, str]
    together: Verdict | None
    why: str
    slices: Mapping[str, tuple[int, Verdict]] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """What candidates are judged with.

    Attributes:
        chain: Recall models and ranker that have not seen the asked users' next events.
        dataset: All data.
        asked: Users.
        settings: ``compress``.
        progress: Where bars go.
    """

    chain: Chain
    dataset: Dataset
    asked: Asked
    settings: Settings
    progress: Progress

    def run(self) -> Outcome:
        """Judges every candidate alone, the promising combinations end to end, and the ranker's on top."""
        goal = GOALS[self.settings.compress.goal]
        original = {source: propose(model, self.asked) for source, model in self.chain.recall.items()}
        lists = rank(self.chain.ranker, original, self.asked)
        judged: dict[str, tuple[Judged, ...]] = {}
        proposals: dict[tuple[str, str], Proposed] = {}
        for source, model in self.chain.recall.items():
            judged[f"recall_{source}"] = self._recall(source, model, original[source], proposals)
        combinations = self._combine(goal, judged, proposals, lists)
        originals = {step: found[0].sizes for step, found in judged.items()}
        fitting = [one for one in combinations if not one.missed]
        if not fitting:
            nearest = combinations[0] if combinations else None
            why = (
                f"no combination meets {goal.name}; the nearest misses {'; '.join(nearest.missed)}"
                if nearest
                else (f"no combination has {goal.tables_ratio:g} times smaller tables")
            )
            return Outcome(goal, originals, judged, combinations, {}, None, why)
        best = fitting[0]
        chosen, together = dict(best.names), best.together
        used = {source: proposals[f"recall_{source}", chosen[f"recall_{source}"]] for source in original}
        why = (
            f"of {len(fitting)} combinations that meet {goal.name} it keeps most of fp32's lists "
            f"({together.overlap:.3f} of the first {self.settings.compress.overlap_at}), "
            f"at {best.ratio:.1f} times smaller tables"
        )
        if compressor_of(RANK):
            rankers, picked, final = self._ranker(goal, used, lists)
            judged[RANK] = rankers
            originals[RANK] = rankers[0].sizes
            if picked is None:
                return Outcome(goal, originals, judged, combinations, {}, None, f"no ranker meets {goal.name}")
            chosen[RANK], together = picked.name, picked.alone
            why += f"; ranker {picked.name}: {rankers[0].sizes.total / picked.sizes.total:.1f} times smaller"
        else:
            final = rank(self.chain.ranker, used, self.asked)
        return Outcome(goal, originals, judged, combinations, chosen, together, why, self._slices(final, lists))

    def _slices(self, final: np.ndarray, lists: np.ndarray) -> dict[str, tuple[int, Verdict]]:
        events, options = self.dataset.events.of_splits(self.chain.fit), self.settings.compress
        popularity = np.bincount(events.item_rows, minlength=self.dataset.n_items)
        return {
            name: (
                int(part.sum()), verdict_within(part, final, lists, self.asked, options.overlap_at, options.seed)
            )
            for name, part in slices(self.asked, popularity).items()
            if part.any()
        }  # fmt: skip

    def _recall(
        self, source: str, model: nn.Module, original: Proposed, proposals: dict[tuple[str, str], Proposed]
    ) -> tuple[Judged, ...]:
        step, options = f"recall_{source}", self.settings.compress
        task = Task(step, model, self.dataset, self.chain.fit, self.settings, {}, self.progress)
        compressor = COMPRESSORS[str(compressor_of(step))]
        found, started = [], time.perf_counter()
        for candidate in itertools.chain([compressor.original(task)], compressor.candidates(task)):
            proposed = original if candidate.name == "fp32" else propose(candidate.module, self.asked)
            proposals[step, candidate.name] = proposed
            alone = verdict(proposed.lists(), original.lists(), self.asked, options.overlap_at, options.seed)
            found.append(as_judged(candidate, alone))
        best = min((one for one in found[1:]), key=lambda one: one.sizes.vectors)
        self.progress.say(
            f"compress {source}: {len(found) - 1} candidates, {found[0].sizes.vectors / best.sizes.vectors:.1f} times "
            f"smaller tables at most, {time.perf_counter() - started:.1f} s"
        )
        return tuple(found)

    def _combine(
        self,
        goal: Goal,
        judged: Mapping[str, Sequence[Judged]],
        proposals: Mapping[tuple[str, str], Proposed],
        lists: np.ndarray,
    ) -> tuple[Combination, ...]:
        """The combinations small enough whose sources keep most of their own lists, ranked end to end."""
        before = sum(found[0].sizes.vectors for found in judged.values())
        shortlists = [shortlist(found) for found in judged.values()]
        small = [
            picks
            for picks in itertools.product(*shortlists)
            if before >= goal.tables_ratio * sum(one.sizes.vectors for one in picks)
        ]
        small.sort(key=lambda picks: -float(np.mean([one.alone.overlap for one in picks])))
        options, made = self.settings.compress, []
        with self.progress.bar("compress together", min(len(small), COMBINATIONS)) as bar:
            for picks in small[:COMBINATIONS]:
                used = {one.step.removeprefix("recall_"): proposals[one.step, one.name] for one in picks}
                ranked = rank(self.chain.ranker, used, self.asked)
                together = verdict(ranked, lists, self.asked, options.overlap_at, options.seed)
                ratio = before / sum(one.sizes.vectors for one in picks)
                names = {one.step: one.name for one in picks}
                made.append(Combination(names, ratio, together, tuple(missed(goal, together, ratio))))
                bar.advance()
        return tuple(sorted(made, key=lambda one: (len(one.missed), -one.together.overlap)))

    def _ranker(
        self, goal: Goal, used: Mapping[str, Proposed], lists: np.ndarray
    ) -> tuple[tuple[Judged, ...], Judged | None, np.ndarray]:
        options, compressor = self.settings.compress, COMPRESSORS[str(compressor_of(RANK))]
        task = Task(
            RANK, self.chain.ranker, self.dataset, self.chain.fit, self.settings, self.chain.recall, self.progress
        )
        original = compressor.original(task)
        inputs = self._one_request(used)
        found, ranked_by = [], {}
        for candidate in itertools.chain([original], compressor.candidates(task)):
            ranked = ranked_by[candidate.name] = rank(candidate.module, used, self.asked)
            one = as_judged(candidate, verdict(ranked, lists, self.asked, options.overlap_at, options.seed))
            module = candidate.module
            timing = measure_latency(lambda module=module: module(*inputs), lambda: self.chain.ranker(*inputs))  # type: ignore[misc]
            found.append(replace(one, latency_ratio=round(timing.ratio, 3)))
        whole = found[0].sizes.total
        fitting = [
            one
            for one in found[1:]
            if whole >= goal.ranker_ratio * one.sizes.total
            and not missed(goal, one.alone, goal.tables_ratio)
            and one.latency_ratio <= options.max_latency_ratio
        ]
        # All of these hold the goal: less work first, then the most alike lists. Timings are too noisy to choose by.
        key = lambda one: (-one.metrics.get("scored_share", 1.0), one.alone.overlap)  # noqa: E731
        picked = max(fitting, key=key, default=None)
        return tuple(found), picked, lists if picked is None else ranked_by[picked.name]

    def _one_request(self, used: Mapping[str, Proposed]) -> tuple[Any, ...]:
        """The rank step's inputs for the user in the middle."""
        batch = self.asked.batches[len(self.asked.batches) // 2]
        at = batch.part.start
        candidates = [torch.from_numpy(part[at : at + 1]) for one in used.values() for part in (one.rows, one.scores)]
        return (*(tensor[:1] for tensor in batch.rank_inputs()), *candidates)


def as_judged(candidate: Candidate, alone: Verdict) -> Judged:
    """A candidate without its module."""
    return Judged(
        candidate.step,
        candidate.name,
        candidate.parent,
        candidate.sizes,
        candidate.passes,
        candidate.unchanged,
        candidate.metrics,
        alone,
    )


def missed(goal: Goal, together: Verdict, ratio: float) -> list[str]:
    """The limits that are not met, each with what was found."""
    found = []
    if ratio < goal.tables_ratio:
        found.append(f"tables {ratio:.1f} times smaller, not {goal.tables_ratio:g}")
    if together.relative.mean < -goal.ndcg_loss:
        found.append(f"NDCG@10 {together.relative.mean:+.2%}, not above {-goal.ndcg_loss:.2%}")
    if together.overlap < goal.overlap:
        found.append(f"overlap {together.overlap:.3f}, not {goal.overlap:g}")
    return found


def front(found: Sequence[Judged]) -> list[Judged]:
    """The candidates that no other is both smaller and nearer to fp32 than, smallest first."""
    kept: list[Judged] = []
    for one in sorted(found, key=lambda one: (one.sizes.vectors, -one.alone.overlap)):
        if not kept or one.alone.overlap > kept[-1].alone.overlap:
            kept.append(one)
    return kept


def shortlist(found: Sequence[Judged]) -> list[Judged]:
    """At most ``SHORTLIST`` of the front, evenly spread over it; floats aside, they are only steps on the way."""
    best = front([one for one in found[1:] if one.passes[-1].name.startswith(QUANTIZED)])
    if len(best) <= SHORTLIST:
        return best
    return [best[at] for at in np.unique(np.linspace(0, len(best) - 1, SHORTLIST).astype(int))]
