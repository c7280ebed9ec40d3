"""What held-out users decide: the blend of the recall scores, and whether and how the network is used."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from core.bootstrap import standard_error
from core.progress import SILENT, Progress
from core.sections import RankerSettings
from training.checkpoints import Checkpoint
from training.distributed.sharing import UNSHARED, Sharing
from training.models.ranker import Ranker
from training.models.ranker_features import PREDICTED_VALUE
from training.ranking.examples import Examples
from training.ranking.scoring import by_base, by_blend, by_member, mean_auc, mean_loss, ndcg_of_users, scores_of
from training.ranking.training import train_network

BLEND_STEPS = {1: 1, 2: 10, 3: 5}
"""Shares are tried in steps of one tenth for two sources, one fifth for three and one quarter for more."""
BLEND_SCALES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Tried scales of the blend: its order stays, the point where the softmax loss starts moves."""
VALUE_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Tried weights of the predicted value, in multiples of the blend's weights together."""
STRENGTHS = (0.125, 0.25, 0.5, 1.0)
"""Tried multiples of the network's output. The softmax loss looks at the whole list, so that the full output often
costs at the top what it gains below; a quarter of it gains at both."""


@dataclass(frozen=True)
class Choice:
    """What the network is worth.

    Attributes:
        epochs: Passes after which it was best.
        strength: Multiple of its output; 0 where it does not beat the base by one standard error.
        gain: Its NDCG@10 above the base's.
        standard_error: Of that gain, over users.
        auc: Its mean AUC over users among their candidates.
    """

    epochs: int
    strength: float
    gain: float
    standard_error: float
    auc: float


def blend_shares(sources: int) -> list[tuple[float, ...]]:
    """Tried shares of the sources in the blend: all points of a regular lattice that add up to 1."""
    steps = BLEND_STEPS.get(sources, 4)
    points = (point for point in itertools.product(range(steps + 1), repeat=sources) if sum(point) == steps)
    return [tuple(part / steps for part in point) for point in points]


def choose_blend(examples: Sequence[Examples]) -> tuple[float, ...]:
    """Weight of each source: the most even shares whose NDCG@10 is within one standard error of the best.

    The curve is flat at its top and the even blend is the safe place on it: the very best share of a few hundred users
    was worse on later users than the even one. The scale is the one with the lowest listwise loss.
    """
    tried = blend_shares(examples[0].batches[0].source_scores.shape[-1])
    values = [
        np.concatenate([ndcg_of_users(scores_of(by_blend(shares), part), part) for part in examples])
        for shares in tried
    ]
    top = values[int(np.argmax([of_share.mean() for of_share in values]))]
    near = [
        shares
        for shares, of_shares in zip(tried, values, strict=True)
        if (top - of_shares).mean() <= standard_error(top - of_shares)
    ]
    shares = min(near, key=lambda shares: sum(share * share for share in shares))
    even = [scores_of(by_blend(shares), part) for part in examples]
    losses = [
        sum(
            mean_loss([scale * scores for scores in of_part], part) * len(part)
            for of_part, part in zip(even, examples, strict=True)
        )
        for scale in BLEND_SCALES
    ]
    scale = BLEND_SCALES[int(np.argmin(losses))]
    return tuple(scale * share for share in shares)


def choose_value_weight(ranker: Ranker, examples: Sequence[Examples]) -> float:
    """Weight of the predicted value beside the blend: that of the highest NDCG@10 over all windows' users.

    0 where the gain is below one standard error: people also take up what they will not like.
    """
    scale = float(ranker.blend.sum())

    def values(weight: float) -> np.ndarray:
        trial = [
            [
                blended + weight * batch.features[..., PREDICTED_VALUE]
                for blended, batch in zip(of_part, part.batches, strict=True)
            ]
            for of_part, part in zip(blends, examples, strict=True)
        ]
        return np.concatenate([ndcg_of_users(scores, part) for scores, part in zip(trial, examples, strict=True)])

    blends = [scores_of(by_blend(ranker.blend.tolist()), part) for part in examples]
    base = values(0.0)
    gains = {ratio * scale: values(ratio * scale) - base for ratio in VALUE_RATIOS}
    best = max(gains, key=lambda weight: gains[weight].mean())
    return best if gains[best].mean() > standard_error(gains[best]) else 0.0


def choose_network(
    ranker: Ranker,
    teach: Sequence[Examples],
    decide: Examples,
    settings: RankerSettings,
    *,
    generator: torch.Generator,
    member: int = 0,
    progress: Progress = SILENT,
    sharing: Sharing = UNSHARED,
) -> Choice:
    """Trains a copy on ``teach`` and looks after each epoch at its gain over the base on ``decide``.

    The clearest gain is taken, the one that is the most standard errors above 0, rather than the largest: it comes
    with smaller strengths and holds up on later users. Below one standard error it counts as none.
    """
    trial, looks = copy.deepcopy(ranker), sharing.part("looks").checkpoints
    before = scores_of(by_base(ranker), decide)
    base = ndcg_of_users(before, decide)
    found = looks.newest() if looks is not None and sharing.group.is_first else None
    choices = [Choice(**facts) for facts in found.facts["choices"]] if found is not None else []

    def look(epoch: int) -> None:
        if not sharing.group.is_first:
            return
        choices[:] = [choice for choice in choices if choice.epochs < epoch]  # an epoch may be done again
        corrections = scores_of(by_member(trial, member), decide)
        for strength in STRENGTHS:
            scores = [start + strength * more for start, more in zip(before, corrections, strict=True)]
            gains = ndcg_of_users(scores, decide) - base
            auc = mean_auc(scores, decide)
            choices.append(Choice(epoch, strength, float(gains.mean()), standard_error(gains), auc))
            progress.record(f"ranker held-out NDCG@10 gain at strength {strength:g}", epoch, choices[-1].gain)
        if looks is not None:
            looks.save(Checkpoint(epoch, {}, {"choices": [asdict(choice) for choice in choices]}))

    train_network(
        trial,
        teach,
        settings,
        epochs=settings.epochs,
        generator=generator,
        member=member,
        progress=progress,
        after_epoch=look,
        sharing=sharing,
    )
    return sharing.group.agree(lambda: _clearest(choices))


def _clearest(choices: Sequence[Choice]) -> Choice:
    best = max(choices, key=lambda choice: choice.gain / max(choice.standard_error, 1e-9))
    used = best.gain > best.standard_error
    return best if used else replace(best, strength=0.0)
