"""`conch tune`: from a request to a study on disk."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from core.artifacts import Artifact, latest_artifact
from core.dataset import event_files
from core.errors import SettingsError, TrainingError
from core.progress import SILENT, Progress
from core.settings import Settings
from training.models.fitters import FITTERS
from training.tuning.journal import StudyPlace, bind, requeue_cut_short, sole_use, wait_for_workers
from training.tuning.objective import Job
from training.tuning.outcome import Outcome, outcome_of
from training.tuning.picking import Limits
from training.tuning.ranker_objective import RankerJob
from training.tuning.recall_objective import RecallJob
from training.tuning.results import BEST, figure, gain, write_results
from training.tuning.space import FIXED_SECTIONS, SearchSpace, search_space
from training.tuning.study import Plan, baseline_of, begun, queue_first, run_trials
from training.tuning.workers import Errand, run_workers

OBJECTIVES = {
    "quality": ("quality", "maximize"),
    "size": ("size_bytes", "minimize"),
    "latency": ("latency_ms", "minimize"),
}
"""Name in the settings to measured value and direction."""
BOUND = ("sampler", "pruner", "metric", "scheme", "windows", "window_share", "max_users", "grid_points", "seed")
"""Keys of [tune] that a study is bound to; budget, workers and what is picked may change between runs."""
DATA_FILES = ("users.parquet", "items.parquet", "user_features.npz", "item_features.npz")
STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Request:
    """What is asked for beside the settings.

    Attributes:
        model: A recall model, or ranker.
        study: Name; None for the model's and the sampler's.
        space: File with ranges.
        searches: Ranges as text, over the file's.
    """

    model: str
    study: str | None = None
    space: Path | None = None
    searches: tuple[str, ...] = ()


def tune(
    settings: Settings,
    request: Request,
    progress: Progress = SILENT,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Outcome:
    """Searches for better settings of one model on the newest dataset; goes on where an earlier run stopped.

    Args:
        settings: What is tuned, and how ([tune]).
        request: Model, study and space.
        progress: A step per trial, one summary line.
        now: Clock of what is written.

    Returns:
        Everything found, also on disk under ``var/tuning/<study>``.

    Raises:
        SettingsError: An unknown model or key, or a study that was started with something else.
        TrainingError: The settings as they are cannot be measured, or every trial failed.
    """
    started = time.perf_counter()
    if request.model not in (*FITTERS, "ranker"):
        raise SettingsError(
            "unknown model", where="conch tune", expected=" | ".join((*FITTERS, "ranker")), found=request.model
        )
    data = latest_artifact(settings.paths.var, "dataset")
    timed = "latency" in settings.tune.objectives or settings.tune.max_latency_ms > 0
    job: Job = (
        RankerJob(settings, data.path, timed)
        if request.model == "ranker"
        else RecallJob(request.model, settings, data.path, timed)
    )
    space = search_space(request.model, settings, file=request.space, searches=request.searches)
    outcome = run_study(job, space, request.study, binding_data=data_identity(data), progress=progress, now=now)
    folder = settings.paths.var / "tuning" / outcome.study
    progress.say(_summary_line(outcome, time.perf_counter() - started, folder))
    return outcome


def run_study(
    job: Job,
    space: SearchSpace,
    name: str | None,
    *,
    binding_data: str,
    progress: Progress = SILENT,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Outcome:
    """Runs a study of any job: what is tuned is up to the job, how is up to ``job.settings.tune``.

    Args:
        job: Builds the objective, here or in worker processes.
        space: What may be changed.
        name: The study's; None for the model's and the sampler's.
        binding_data: Identity of what is measured on.
        progress: A step per trial.
        now: Clock of what is written.

    Raises:
        SettingsError: A study that was started with something else, or is in use.
        TrainingError: Every trial failed.
    """
    settings = job.settings
    plan = plan_of(job, space, name)
    folder = plan.place.folder
    with sole_use(folder):
        wait_for_workers(folder)
        study = plan.open()
        bind(study, plan.place, _binding(job, space, binding_data, plan.objectives))
        again = requeue_cut_short(study)
        if again:
            progress.say(f"tune {job.model}: {again} interrupted trial{'s' if again > 1 else ''} queued again")
        objective = job.build()
        baseline_of(study, plan.place, objective)
        total = queue_first(study, plan, space.encode(settings))
        with progress.bar(f"tune {job.model}", total) as bar:
            bar.advance(begun(study))
            shown = begun(study)

            def watch() -> None:
                nonlocal shown
                ended = study.get_trials(
                    deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
                )
                count = begun(study) - len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
                complete = [trial.values[0] for trial in ended if trial.state == TrialState.COMPLETE]
                bar.advance(count - shown, f"best {max(complete):.4f}" if complete else "")
                shown = count

            if plan.workers == 1:
                run_trials(study, plan, objective, total=total, after=lambda trial: watch())
            else:
                run_workers(Errand(plan, _with_share_of_threads(job, plan.workers), total), watch)
        outcome = outcome_of(
            study,
            plan,
            model=job.model,
            metric=job.metric,
            scheme=objective.scheme,
            rule=settings.tune.pick,
            limits=Limits(settings.tune.max_size_mb, settings.tune.max_latency_ms),
            data=binding_data,
            date=now(),
        )
        write_results(folder, outcome)
    if outcome.trials and outcome.count("failed") == len(outcome.trials):
        raise TrainingError(
            "every trial failed", where=str(folder), found=outcome.trials[0].reason, next_step="search a narrower space"
        )
    return outcome


def plan_of(job: Job, space: SearchSpace, name: str | None) -> Plan:
    """How ``job.settings.tune`` wants to search.

    Raises:
        SettingsError: A name that is no folder name, or objectives that say too little.
    """
    tune = job.settings.tune
    name = name or f"{job.model}-{tune.sampler}"
    if not STUDY_NAME.fullmatch(name):
        raise SettingsError(
            "no usable name of a study", where="--study", expected="letters, digits, dot, dash, underscore", found=name
        )
    if tune.objectives[:1] != ("quality",) or len(set(tune.objectives)) != len(tune.objectives):
        raise SettingsError(
            "objectives start with quality and name each once",
            where="tune.objectives",
            expected="quality, then size, latency or both",
            found=", ".join(tune.objectives),
        )
    chosen = [OBJECTIVES[objective] for objective in tune.objectives]
    return Plan(
        StudyPlace(job.settings.paths.var / "tuning" / name, tuple(direction for _, direction in chosen)),
        tuple(value for value, _ in chosen),
        space,
        tune.sampler,
        tune.pruner,
        tune.trials,
        tune.workers,
        job.steps,
        tune.seed,
        tune.grid_points,
        tune.timeout_minutes * 60 or math.inf,
    )


def data_identity(data: Artifact) -> str:
    """sha256 over what the dataset holds: the same data built twice is the same."""
    files = {record.path: record.sha256 for record in data.manifest.files if record.path in DATA_FILES}
    files |= event_files(data)
    return hashlib.sha256("\n".join(f"{name} {files[name]}" for name in sorted(files)).encode()).hexdigest()


def _binding(job: Job, space: SearchSpace, data: str, objectives: Sequence[str]) -> dict[str, Any]:
    tree = job.settings.model_dump(mode="json")
    searched = set(space.ranges)
    sections = {
        section: {key: value for key, value in values.items() if (section, key) != ("train", "threads")}
        for section, values in tree.items()
        if section not in FIXED_SECTIONS
    }
    return {
        "model": job.model,
        "data": data,
        "space": space.as_text(),
        "objectives": list(objectives),
        "tune": {key: tree["tune"][key] for key in BOUND},
        "settings": sections,
        "searched": sorted(searched),
    }


def _with_share_of_threads(job: Any, workers: int) -> Any:
    """The job for one of several processes, which share the threads of one."""
    threads = job.settings.train.threads or os.cpu_count() or 1
    train = job.settings.train.model_copy(update={"threads": max(1, threads // workers)})
    return replace(job, settings=job.settings.model_copy(update={"train": train}))


def _summary_line(outcome: Outcome, seconds: float, folder: Path) -> str:
    states = ", ".join(f"{outcome.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    if outcome.picked is None:
        end = "nothing keeps to the limits, no best.toml"
    else:
        end = f"{figure(outcome.picked)} ({outcome.picked.label}, {gain(outcome)}), wrote {folder / BEST}"
    return (
        f"tune {outcome.model}: {len(outcome.trials)} trials by {outcome.sampler} ({states}) in {seconds:.1f} s, "
        f"{outcome.metric} {figure(outcome.baseline)} as it was, {end}"
    )
