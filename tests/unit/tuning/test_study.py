from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from core.errors import SettingsError, TrainingError
from core.settings import load_settings
from tests.unit.tuning.studies import HillJob, settings_in, space_of
from training.tuning.outcome import Outcome
from training.tuning.picking import Candidate
from training.tuning.results import gain
from training.tuning.stage import plan_of, run_study

FEW = ("tune.trials=12",)


def run(folder: Path, *overrides: str, name: str = "hill", data: str = "data", **job: object) -> Outcome:
    made = replace(HillJob(settings_in(folder, *FEW, *overrides)), **job)  # type: ignore[arg-type]
    return run_study(made, space_of(), name, binding_data=data)


def tried(outcome: Outcome) -> list[dict[str, object]]:
    return [dict(trial.values) for trial in outcome.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "annealing", "nsga2"])
def test_every_sampler_beats_the_settings_as_they_were(tmp_path: Path, sampler: str) -> None:
    outcome = run(tmp_path, f"tune.sampler={sampler}", "tune.trials=20")
    assert outcome.best.quality > outcome.baseline.quality
    assert len(outcome.trials) == 20


def test_grid_finds_the_best_of_all_combinations(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.sampler=grid", "tune.grid_points=3", "tune.trials=100")
    assert len(outcome.trials) == 3 * 3 * 2
    assert len({repr(values) for values in tried(outcome)}) == 18
    assert outcome.best.values == {"mf.dimension": 32, "mf.popularity": 0.5, "mf.solver": "torch"}


def test_grid_larger_than_the_budget_is_covered_by_a_random_part(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.sampler=grid", "tune.grid_points=3", "tune.trials=6")
    assert len({repr(values) for values in tried(outcome)}) == 6
    assert len({values["mf.solver"] for values in tried(outcome)}) == 2


def test_more_trials_go_on_where_the_study_ended(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    first = run(tmp_path, "tune.sampler=random", "tune.trials=5", trace=trace)
    second = run(tmp_path, "tune.sampler=random", "tune.trials=9", trace=trace)
    whole = run(tmp_path, "tune.sampler=random", "tune.trials=9", name="whole")
    assert tried(second)[:5] == tried(first)
    assert tried(second) == tried(whole)
    assert len(trace.read_text().splitlines()) == 9 + 1  # the settings as they were, once


def test_same_settings_are_not_measured_twice(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    job = HillJob(settings_in(tmp_path, "tune.sampler=random", "tune.trials=10"), trace=trace)
    outcome = run_study(job, space_of({"mf.dimension": "int:1:3"}), None, binding_data="data")
    assert len(outcome.trials) == 10
    assert len(trace.read_text().splitlines()) <= 1 + 3
    repeated = [trial for trial in outcome.trials if trial.same_as is not None]
    assert repeated
    assert all(trial.measured.quality == outcome.trials[trial.same_as].measured.quality for trial in repeated)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (("mf.epochs=3",), "settings.mf.epochs: 10 then, 3 now"),
        (("tune.windows=2",), "tune.windows: 3 then, 2 now"),
        (("train.seed=1",), "settings.train.seed"),
        (("tune.seed=1",), "tune.seed"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, changed: tuple[str, ...], told: str) -> None:
    run(tmp_path, "tune.trials=2")
    with pytest.raises(SettingsError) as refused:
        run(tmp_path, "tune.trials=2", *changed)
    assert told in str(refused.value)
    assert "--study" in str(refused.value)


def test_other_data_are_refused(tmp_path: Path) -> None:
    run(tmp_path, "tune.trials=2")
    with pytest.raises(SettingsError, match="data: data then, others now"):
        run(tmp_path, "tune.trials=2", data="others")


def test_other_space_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "tune.trials=2")
    job = HillJob(settings_in(tmp_path, "tune.trials=2"))
    with pytest.raises(SettingsError, match="space"):
        run_study(job, space_of({"mf.dimension": "int:1:65"}), "hill", binding_data="data")


def test_other_objectives_are_refused(tmp_path: Path) -> None:
    run(tmp_path, "tune.trials=2")
    with pytest.raises(SettingsError, match="objectives"):
        run(tmp_path, "tune.trials=2", 'tune.objectives=["quality","size"]')


@pytest.mark.parametrize("changed", ["tune.workers=2", "train.threads=1", "tune.pick=one-se", "serving.max_k=7"])
def test_what_no_value_depends_on_may_change(tmp_path: Path, changed: str) -> None:
    run(tmp_path, "tune.trials=2")
    assert len(run(tmp_path, "tune.trials=2", changed).trials) == 2


def test_trial_that_is_not_finite_fails_with_its_reason(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.sampler=random", broken_below=30)
    failed = [trial for trial in outcome.trials if trial.state == "failed"]
    assert failed
    assert all(trial.values["mf.dimension"] < 30 for trial in failed)
    assert {trial.reason for trial in failed} == {"quality is not finite"}
    assert math.isfinite(outcome.best.quality)


def test_trial_whose_training_fails_tells_why(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.sampler=random", refused_above=30)
    reasons = {trial.reason for trial in outcome.trials if trial.state == "failed"}
    assert reasons == {"training of mf diverged where: step 3 found: nan"}
    assert "step 3" in (tmp_path / "tuning" / "hill" / "summary.md").read_text()


def test_study_where_everything_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="every trial failed"):
        run(tmp_path, "tune.sampler=random", "tune.trials=3", broken_below=1_000)


def test_study_whose_start_cannot_be_measured_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="settings as they are"):
        run(tmp_path, broken_at_first=True)


def test_bad_trials_are_pruned_with_their_reason(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.sampler=random", "tune.trials=20")
    pruned = [trial for trial in outcome.trials if trial.state == "pruned"]
    assert pruned
    assert all("is worse than other trials" in trial.reason for trial in pruned)


def test_hyperband_prunes_as_well(tmp_path: Path) -> None:
    assert run(tmp_path, "tune.sampler=random", "tune.trials=30", "tune.pruner=hyperband").count("pruned")


def test_front_of_two_objectives_holds_no_beaten_trial(tmp_path: Path) -> None:
    outcome = run(tmp_path, 'tune.objectives=["quality","size"]', "tune.trials=25")
    tried = [trial.measured for trial in outcome.trials if trial.measured]

    def beats(one: Candidate, two: Candidate) -> bool:
        pairs = ((one.quality, two.quality), (-(one.size_bytes or 0), -(two.size_bytes or 0)))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    front = {found.number for found in outcome.front}
    assert front == {found.number for found in tried if not any(beats(other, found) for other in tried)}
    assert len(front) > 1


def test_limit_picks_the_best_model_that_keeps_to_it(tmp_path: Path) -> None:
    outcome = run(tmp_path, 'tune.objectives=["quality","size"]', "tune.trials=25", "tune.max_size_mb=1e-5")
    assert outcome.picked is not None
    assert (outcome.picked.size_bytes or 0) <= 10
    allowed = [trial.measured for trial in outcome.trials if trial.measured and (trial.measured.size_bytes or 0) <= 10]
    assert outcome.picked.quality == max(found.quality for found in allowed)


def test_limit_that_nothing_keeps_to_picks_nothing(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.trials=3", "tune.max_size_mb=1e-9")
    assert outcome.picked is None
    assert not (tmp_path / "tuning" / "hill" / "best.toml").exists()


def test_objectives_without_quality_first_are_refused(tmp_path: Path) -> None:
    job = HillJob(settings_in(tmp_path, 'tune.objectives=["size"]'))
    with pytest.raises(SettingsError, match="start with quality"):
        plan_of(job, space_of(), None)


def test_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no usable name"):
        plan_of(HillJob(settings_in(tmp_path)), space_of(), "../other")


def test_timeout_starts_no_further_trial(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.timeout_minutes=0.002", "tune.trials=100", seconds=0.1)
    assert 1 <= len(outcome.trials) < 20


def test_best_file_gives_train_the_settings_that_were_measured(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.trials=20")
    settings = load_settings((tmp_path / "tuning" / "hill" / "best.toml",))
    assert outcome.picked is not None
    assert {
        "mf.dimension": settings.mf.dimension,
        "mf.popularity": settings.mf.popularity,
        "mf.solver": settings.mf.solver,
    } == outcome.picked.values


def test_settings_that_nothing_beats_stay_as_they_were(tmp_path: Path) -> None:
    job = HillJob(settings_in(tmp_path, "tune.trials=3"))
    outcome = run_study(job, space_of({"mf.popularity": "float:0.95:1"}), "hill", binding_data="data")
    assert outcome.picked is not None
    assert outcome.picked.number is None
    assert load_settings((tmp_path / "tuning" / "hill" / "best.toml",)) == load_settings(())


def test_files_tell_the_same_as_the_outcome(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.trials=20", broken_below=3)
    folder = tmp_path / "tuning" / "hill"
    rows = (folder / "trials.csv").read_text().splitlines()
    assert len(rows) == 1 + 20
    assert rows[0].startswith("trial,state,quality,standard_error,size_bytes,latency_ms,seconds,same_as,mf.dimension")
    assert f'"quality": {outcome.best.quality}' in (folder / "results.json").read_text()
    assert "## Importance of each setting" in (folder / "summary.md").read_text()


def test_importances_name_every_setting_and_add_up(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.sampler=random", "tune.pruner=none", "tune.trials=30")
    assert set(outcome.importances) == {"mf.dimension", "mf.popularity", "mf.solver"}
    assert sum(outcome.importances.values()) == pytest.approx(1, abs=0.01)
    assert "rough" not in outcome.importance_note


def test_gain_within_its_error_is_called_unclear(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.trials=20")
    assert outcome.picked is not None
    sure = replace(outcome, picked=replace(outcome.picked, standard_error=0.01))
    unsure = replace(outcome, picked=replace(outcome.picked, standard_error=10.0))
    assert "may not hold" not in gain(sure)
    assert "may not hold" in gain(unsure)


def test_few_trials_have_no_importances(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tune.trials=3")
    assert not outcome.importances
    assert "too few" in outcome.importance_note


def test_study_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.tuning import journal

    monkeypatch.setattr(journal, "PATIENCE_SECONDS", 0.1)
    with journal.sole_use(tmp_path / "tuning" / "hill"), pytest.raises(SettingsError, match="in use"):
        run(tmp_path)


def test_no_trial_is_left_running(tmp_path: Path) -> None:
    run(tmp_path, "tune.trials=4", broken_below=3)
    study = plan_of(HillJob(settings_in(tmp_path)), space_of(), "hill").open()
    assert all(trial.state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED) for trial in study.trials)
