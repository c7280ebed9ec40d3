"""The Open Bandit measurement on made logs whose truth is known."""

from __future__ import annotations

import numpy as np

from bench.open_bandit import estimate, policy_table

ITEMS, PLACES = 8, 2
RATES = np.linspace(0.02, 0.3, ITEMS)
POLICY = np.stack([np.linspace(1, 3, ITEMS), np.ones(ITEMS)], 1)
POLICY /= POLICY.sum(0)


def log(policy: np.ndarray, n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    place = rng.integers(PLACES, size=n)
    item = np.array([rng.choice(ITEMS, p=policy[:, at]) for at in place])
    return {
        "item": item, "place": place, "click": (rng.random(n) < RATES[item]).astype(float),
        "propensity": policy[item, place], "user": rng.integers(n // 4, size=n),
    }  # fmt: skip


def test_policy_is_read_from_its_own_log() -> None:
    np.testing.assert_allclose(policy_table(log(POLICY, 4_000, 0), ITEMS, PLACES), POLICY, atol=1e-9)


def test_unseen_pairs_share_what_is_left() -> None:
    seen = {name: values[:1] for name, values in log(POLICY, 50, 0).items()}
    table = policy_table(seen, ITEMS, PLACES)
    np.testing.assert_allclose(table.sum(0), 1)
    assert (table >= 0).all()


def test_estimate_from_the_others_logs_holds_the_truth() -> None:
    uniform = np.full((ITEMS, PLACES), 1 / ITEMS)
    found = estimate(log(uniform, 8_000, 1), log(POLICY, 8_000, 2), seed=0)
    assert found["holds truth"] == {"snips": True, "doubly_robust": True}
    assert found["truth"] > 0
    assert found["doubly_robust"]["mean"] > 0
    assert found["verdict"] == "pass"
