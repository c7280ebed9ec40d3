from __future__ import annotations

import numpy as np
import pytest

from training.tuning.picking import Candidate, Limits, best, one_standard_error, pick, profile


def candidate(number: int | None, quality: float, size: float | None = None, **more: object) -> Candidate:
    return Candidate(number, {"mf.dimension": number}, quality, 0.02, size, **more)  # type: ignore[arg-type]


CURVE = [candidate(8, 0.20, 8.0), candidate(16, 0.285, 16.0), candidate(32, 0.30, 32.0), candidate(64, 0.29, 64.0)]


def test_best_has_the_highest_quality() -> None:
    assert best(CURVE).number == 32


def test_one_standard_error_takes_the_smallest_that_is_as_good() -> None:
    assert one_standard_error(CURVE).number == 16


def test_one_standard_error_stays_with_the_best_where_all_else_is_worse() -> None:
    assert one_standard_error([candidate(8, 0.279, 8.0), *CURVE[2:]]).number == 32


def test_one_standard_error_takes_the_better_of_two_equally_small() -> None:
    assert one_standard_error([candidate(1, 0.29, 8.0), candidate(2, 0.295, 8.0), CURVE[2]]).number == 2


def test_paired_rule_allows_only_what_users_cannot_tell_apart() -> None:
    users = np.array([0.01, -0.01, 0.01, -0.01])
    near = candidate(8, 0.29, 8.0, deviations=users[::-1])  # other users do well: difference 0.01 ± 0.04
    like = candidate(16, 0.29, 16.0, deviations=users + 0.001)  # each user is 0.001 off: ± 0.002
    top = candidate(32, 0.30, 32.0, deviations=users)
    assert one_standard_error([like, top], paired=True) == top
    assert one_standard_error([near, like, top], paired=True) == near
    assert one_standard_error([like, top]) == like


def test_equal_quality_goes_to_the_smaller_then_to_the_settings_as_they_were() -> None:
    assert best([candidate(1, 0.3, 9.0), candidate(2, 0.3, 8.0)]).number == 2
    assert best([candidate(1, 0.3, 8.0), candidate(None, 0.3, 8.0)]).number is None


@pytest.mark.parametrize(("megabytes", "picked"), [(0.0, 32), (20e-6, 16), (9e-6, 8), (1e-6, None)])
def test_limit_on_size_decides_who_may_be_picked(megabytes: float, picked: int | None) -> None:
    found = pick(CURVE, "best", Limits(size_mb=megabytes))
    assert (found.number if found else None) == picked


def test_unmeasured_latency_keeps_to_no_limit() -> None:
    timed = candidate(3, 0.1, 8.0, latency_ms=1.0)
    assert pick([*CURVE, timed], "best", Limits(latency_ms=2.0)) == timed


def test_rule_looks_only_at_what_is_within_the_limits() -> None:
    found = pick([candidate(4, 0.27, 4.0), *CURVE], "one-se", Limits(size_mb=20e-6))
    assert found is not None
    assert found.number == 4  # within one standard error of 16, the best that is small enough


def test_profile_tells_the_best_of_each_value_in_order() -> None:
    rows = profile([CURVE[2], CURVE[0], candidate(8, 0.22, 8.0)], "mf.dimension")
    assert [(row.value, row.trials, row.top.quality) for row in rows] == [(8, 2, 0.22), (32, 1, 0.30)]
