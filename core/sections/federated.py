"""Training where clients keep their users' events, and its privacy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.sections.base import Section


class FederatedSettings(Section):
    """`conch federate`, see training/federated."""

    clients: int = Field(10, ge=3, le=1000)
    """Who hold the users' events; secure aggregation needs three."""
    partition: Literal["even", "skewed"] = "even"
    """even: users dealt at random. skewed: clients differ in size (Dirichlet, concentration 1) and in taste."""
    rounds: int = Field(10, ge=1)
    """Times that clients compute and the server adds up; a round of statistics comes before."""
    strategy: Literal["fedavg", "fedprox"] = "fedprox"
    """fedprox: local tables are pulled towards everybody's."""
    proximal: float = Field(0.1, ge=0)
    """FedProx' mu, as a share of an item's mass."""
    local_epochs: int = Field(1, ge=1)
    """Passes of a client over its users and its items in each round."""
    secure: bool = True
    """SecAgg+: the server learns the sum over clients and no client's part."""


class PrivateSettings(Section):
    """User-level differential privacy of federated training: the whole training reveals little about any one user."""

    epsilon: float = Field(0.0, ge=0)
    """Budget of the whole training; 0 for none, that is without noise."""
    delta: float = Field(1e-5, gt=0, lt=1)
    """Probability that the bound may fail; below one over the users."""
    rounds: int = Field(5, ge=1)
    """In place of federated.rounds: each costs a share of the budget."""
    dimension: int = Field(8, ge=1)
    """In place of mf.dimension: noise grows with its root."""
    clip: float = Field(0.3, gt=0)
    """Longest contribution of one user to a round's sum."""
    statistics_clip: float = Field(3.0, gt=0)
    """As clip, for the items' masses that are asked for first."""
    gram_weight: float = Field(0.3, gt=0)
    """Weight of a user's Gram matrix against the gradients under the one clip."""
    step: float = Field(0.5, gt=0, le=1)
    """Share of each round's way to its minimum."""
