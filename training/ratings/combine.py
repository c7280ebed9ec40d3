"""Trains the combiner on cross-fitted summaries."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from core.errors import TrainingError
from core.sections import RatingSettings
from training.loop import cosine
from training.ratings.model import Combiner

MOST_BATCH_PAIRS, FEWEST_BATCH_PAIRS = 1_024, 32
STEPS_PER_EPOCH = 64
"""Small data takes smaller batches, so that it takes enough steps."""
SMALLEST_SCALE = 1e-3


def fit_combiner(
    combiner: Combiner,
    summaries: torch.Tensor,
    values: torch.Tensor,
    liked: torch.Tensor,
    settings: RatingSettings,
    generator: torch.Generator,
) -> None:
    """Trains in place: squared error of the corrected value plus cross-entropy of the logit.

    Args:
        combiner: Starts as no correction and a constant probability.
        summaries: float32 ``(pairs, len(SUMMARY))`` by models that did not see the pairs' values.
        values: Standardised values float32 ``(pairs,)``.
        liked: 0 or 1 float32 ``(pairs,)``.
        settings: Rates and epochs.
        generator: Start weights and order.

    Raises:
        TrainingError: The loss is not finite.
    """
    _start(combiner, summaries, liked, generator)
    optimizer = torch.optim.AdamW(combiner.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    size = min(max(len(values) // STEPS_PER_EPOCH, FEWEST_BATCH_PAIRS), MOST_BATCH_PAIRS)
    total, step = settings.epochs * math.ceil(len(values) / size), 0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: cosine(done, total))
    for epoch in range(1, settings.epochs + 1):
        for part in torch.randperm(len(values), generator=generator).split(size):
            optimizer.zero_grad()
            correction, logit = combiner(summaries[part])
            error = F.mse_loss(summaries[part, 0] + correction, values[part])
            loss = error + F.binary_cross_entropy_with_logits(logit, liked[part])
            if not torch.isfinite(loss):
                raise TrainingError(
                    "the loss of the rating combiner is not finite",
                    where=f"epoch {epoch}, step {step}",
                    found=str(loss.item()),
                    next_step="lower rating.learning_rate",
                )
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    combiner.eval()


def best_cut(probabilities: np.ndarray, liked: np.ndarray) -> float:
    """The probability from which on to say "liked" so that F1 is highest; the middle of two neighbours.

    Args:
        probabilities: float ``(pairs,)``.
        liked: bool ``(pairs,)``.
    """
    order = np.argsort(-probabilities, kind="stable")
    ordered, hits = probabilities[order], np.cumsum(liked[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + max(int(hits[-1]), 1))
    f1[:-1][ordered[:-1] == ordered[1:]] = -1.0  # a cut cannot part equal probabilities
    best = int(np.argmax(f1))
    following = ordered[best + 1] if best + 1 < len(ordered) else 0.0
    return float((ordered[best] + following) / 2)


def _start(combiner: Combiner, summaries: torch.Tensor, liked: torch.Tensor, generator: torch.Generator) -> None:
    with torch.no_grad():
        deviation = summaries.std(0)
        combiner.centre.copy_(summaries.mean(0))
        combiner.scale.copy_(torch.where(deviation > SMALLEST_SCALE, deviation, torch.ones_like(deviation)))
        for layer in (combiner.direct, combiner.outer):
            layer.weight.zero_()
            layer.bias.zero_()
        bound = 1 / math.sqrt(combiner.inner.in_features)
        for weights in (combiner.inner.weight, combiner.inner.bias):
            weights.uniform_(-bound, bound, generator=generator)
        share = liked.mean().clamp(1e-3, 1 - 1e-3)
        combiner.direct.bias[1] = torch.log(share / (1 - share))
