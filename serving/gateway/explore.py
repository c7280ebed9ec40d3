"""Exploration: Plackett-Luce over the candidates, with uniform choices in the lower half, replayable from the log.

A slate is drawn place by place from what is left of the candidates S: with probability 1 - epsilon by
``exp(score / temperature)`` (Plackett-Luce; drawn as a Gumbel top-k, Kool et al. 2019), with probability epsilon, in
the lower half only, uniformly. The generator is Philox keyed by the request id: who has the logged row has the slate.

Propensities are marginal, P(item at place i), as off-policy estimates by place need them: the mean over sampled
prefixes of P(item at i | prefix), the prefix that was shown being one of them, so that none is 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.feedback import Candidate, Exploration, Impression

PLACKETT_LUCE = "plackett-luce"
NOTHING = Exploration()
LOWEST = -1e9
"""Logits stay finite: minus infinity would tie with places that are taken."""


@dataclass(frozen=True)
class Drawn:
    """A slate.

    Attributes:
        places: int64 ``(k,)``, places in the list of candidates.
        uniform: bool ``(k,)``, True where the uniform choice took the place.
    """

    places: np.ndarray
    uniform: np.ndarray


def policy_for(request_id: str, scores: Sequence[float], temperature: float, epsilon: float, draws: int) -> Exploration:
    """The policy of one request.

    Args:
        request_id: Its hash is the key of the generator.
        scores: Of the candidates, best first.
        temperature: In standard deviations of the scores, which are unbounded and differ between lists.
        epsilon: Share of uniform choices.
        draws: Samples behind each propensity.
    """
    spread = float(np.std(np.asarray(scores, dtype=np.float64))) if len(scores) > 1 else 0.0
    if temperature * spread <= 0 and epsilon <= 0:
        return NOTHING
    seed = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "big")
    return Exploration(method=PLACKETT_LUCE, temperature=temperature * spread, epsilon=epsilon, seed=seed, draws=draws)


def draw_slate(scores: Sequence[float], k: int, policy: Exploration) -> Drawn:
    """Draws min(k, n) of n candidates. The same arguments give the same slate, bit for bit."""
    logits = _logits(scores, policy)
    k = min(k, len(logits))
    if policy.method == NOTHING.method:
        return Drawn(np.arange(k), np.zeros(k, dtype=bool))
    return _draw(logits, k, policy, np.random.Generator(np.random.Philox(key=policy.seed)), 1)[0]


def propensities(scores: Sequence[float], places: np.ndarray, policy: Exploration) -> np.ndarray:
    """float64 ``(k,)``: probability that the policy puts this candidate at this place; each above 0.

    Args:
        scores: Of all n candidates, best first.
        places: The slate as places among them.
        policy: As logged.
    """
    k = len(places)
    if policy.method == NOTHING.method or k == 0:
        return np.ones(k)
    logits = _logits(scores, policy)
    generator = np.random.Generator(np.random.Philox(key=policy.seed, counter=1 << 128))
    prefixes = [places, *(drawn.places for drawn in _draw(logits, k, policy, generator, policy.draws))]
    table = np.stack(prefixes)  # (draws + 1, k)
    tail = tail_start(k)
    weights = np.exp(logits - logits.max())
    found = np.zeros(k)
    gone = np.zeros((len(table), len(logits)), dtype=bool)  # (draws + 1, n), in the prefix
    rows = np.arange(len(table))
    for at in range(k):
        left = np.where(gone, 0.0, weights)
        by_score = left[:, places[at]] / np.maximum(left.sum(axis=1), np.finfo(np.float64).tiny)
        chance = by_score
        if at >= tail and policy.epsilon:
            uniform = np.where(gone[:, places[at]], 0.0, 1.0 / (len(logits) - at))
            chance = (1 - policy.epsilon) * by_score + policy.epsilon * uniform
        found[at] = chance.mean()
        gone[rows, table[:, at]] = True
    return np.clip(found, np.finfo(np.float64).tiny, 1.0)


def tail_start(k: int) -> int:
    """The first place, from 0, that a uniform choice may take: the upper half of a slate is left to the scores."""
    return (k + 1) // 2


def replay(impression: Impression) -> tuple[list[str], list[float]]:
    """Slate and propensities of a logged row, computed again from its candidates: equal to the logged ones."""
    candidates: Sequence[Candidate] = impression.candidates
    scores = [candidate.score for candidate in candidates]
    drawn = draw_slate(scores, len(impression.slate), impression.exploration)
    chances = propensities(scores, drawn.places, impression.exploration)
    return [candidates[place].item for place in drawn.places], chances.tolist()


def _logits(scores: Sequence[float], policy: Exploration) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if policy.temperature > 0 and len(values):
        with np.errstate(over="ignore"):  # a tiny temperature: as far below as anything can be
            return np.maximum((values - values.max()) / policy.temperature, LOWEST)
    return -1e6 * np.arange(len(values), dtype=np.float64)  # as good as no randomness: the order stands


def _draw(logits: np.ndarray, k: int, policy: Exploration, generator: np.random.Generator, times: int) -> list[Drawn]:
    """``times`` independent slates. The Gumbel trick holds for what is left after any place, uniform ones included."""
    if not times:
        return []
    n = len(logits)
    perturbed = logits - np.log(-np.log(_open_uniform(generator, (times, n))))
    coins = generator.random((times, k)) < policy.epsilon
    coins[:, : tail_start(k)] = False
    pick = _open_uniform(generator, (times, k, n)) if coins.any() else None
    order = np.argsort(-perturbed, axis=1, kind="stable")[:, :k]
    slates = []
    for row in range(times):
        if pick is None or not coins[row].any():
            slates.append(Drawn(order[row], coins[row]))
            continue
        keys, chosen = perturbed[row].copy(), np.zeros(k, dtype=np.int64)
        gone = np.zeros(n, dtype=bool)
        for at in range(k):
            by = pick[row, at] if coins[row, at] else keys
            chosen[at] = int(np.argmax(np.where(gone, -np.inf, by)))
            gone[chosen[at]] = True
        slates.append(Drawn(chosen, coins[row]))
    return slates


def _open_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform over (0, 1): neither end, whose logarithms are infinite."""
    return (generator.integers(0, 1 << 52, shape).astype(np.float64) + 0.5) / float(1 << 52)
