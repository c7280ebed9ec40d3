"""What held-out users decide: the blend of both recall scores, and whether and how the network is used."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from core.bootstrap import standard_error
from core.progress import SILENT, Progress
from core.sections import RankerSettings
from training.models.ranker import Ranker
from training.ranking.examples import Examples
from training.ranking.scoring import by_blend, by_network, mean_auc, mean_loss, ndcg_of_users, scores_of
from training.ranking.training import train_network

BLEND_SHARES = tuple(round(share / 10, 1) for share in range(11))
"""Tried shares of mf in the blend."""
BLEND_SCALES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Tried scales of the blend: its order stays, the point where the softmax loss starts moves."""
STRENGTHS = (0.25, 0.5, 1.0)
"""Tried multiples of the network's output."""


@dataclass(frozen=True)
class Choice:
    """What the network is worth.

    Attributes:
        epochs: Passes after which it was best.
        strength: Multiple of its output; 0 where it does not beat the blend by one standard error.
        gain: Its NDCG@10 above the blend's.
        standard_error: Of that gain, over users.
        auc: Its mean AUC over users among their candidates.
    """

    epochs: int
    strength: float
    gain: float
    standard_error: float
    auc: float


def choose_blend(examples: tuple[Examples, ...]) -> tuple[float, float]:
    """Weights of mf and gat: the share with the best NDCG@10 over all users, ties to the even blend.

    The scale is the one with the lowest listwise loss.
    """
    means = [
        np.concatenate([ndcg_of_users(scores_of(by_blend((share, 1 - share)), part), part) for part in examples]).mean()
        for share in BLEND_SHARES
    ]
    best = max(range(len(means)), key=lambda place: (means[place], -abs(BLEND_SHARES[place] - 0.5)))
    share = BLEND_SHARES[best]
    even = [scores_of(by_blend((share, 1 - share)), part) for part in examples]
    losses = [
        sum(
            mean_loss([scale * scores for scores in of_part], part) * len(part)
            for of_part, part in zip(even, examples, strict=True)
        )
        for scale in BLEND_SCALES
    ]
    scale = BLEND_SCALES[int(np.argmin(losses))]
    return scale * share, scale * (1 - share)


def choose_network(
    ranker: Ranker,
    teach: Examples,
    decide: Examples,
    settings: RankerSettings,
    *,
    generator: torch.Generator,
    progress: Progress = SILENT,
) -> Choice:
    """Trains a copy on ``teach`` and looks after each epoch at its gain over the blend on ``decide``.

    A gain below one standard error counts as none: with few users the best of many tries is mostly luck.
    """
    trial = copy.deepcopy(ranker)
    blended = scores_of(by_blend(ranker.blend.tolist()), decide)
    base = ndcg_of_users(blended, decide)
    choices: list[Choice] = []

    def look(epoch: int) -> None:
        corrections = scores_of(by_network(trial), decide)
        for strength in STRENGTHS:
            scores = [before + strength * more for before, more in zip(blended, corrections, strict=True)]
            gains = ndcg_of_users(scores, decide) - base
            auc = mean_auc(scores, decide)
            choices.append(Choice(epoch, strength, float(gains.mean()), standard_error(gains), auc))

    train_network(
        trial, (teach,), settings, epochs=settings.epochs, generator=generator, progress=progress, after_epoch=look
    )
    best = max(choices, key=lambda choice: choice.gain)
    used = best.gain > best.standard_error
    return best if used else replace(best, strength=0.0)
