"""The loop around training: gate, retraining, schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.sections.base import Section


class GateSettings(Section):
    """What a challenger has to prove before it goes live, see pipeline/gate."""

    rules: Path = Path("config/gate/rules.toml")
    """File with every threshold. A key that is missing or misspelled there refuses to run."""
    seed: int = 0
    """Of the resamples."""
    resamples: int = Field(2_000, ge=200)
    """Bootstrap samples over users."""
    max_users: int = Field(5_000, ge=10)
    """Users of the later window that are compared; a random choice where there are more."""
    servers: Literal["triton", "none"] = "triton"
    """none skips parity, latency and infrastructure checks, and then nothing can be blessed."""


class RetrainSettings(Section):
    """One run of the loop: data, training, gate, publishing, see pipeline/loop."""

    mode: Literal["auto", "incremental", "full"] = "auto"
    """auto: incremental, and a full challenger beside it every ``full_every`` runs."""
    full_every: int = Field(5, ge=1)
    least_events: int = Field(100, ge=1)
    """With fewer new events nothing is trained."""
    continues: tuple[Literal["mf", "gat"], ...] = ("mf",)
    """Recall models that an incremental run starts from the live release's weights; the others start from nothing. gat
    takes seconds to fit and learns too long when it goes on: see docs/decisions.md."""
    replay_share: float = Field(0.3, ge=0, le=1)
    """Share of old users among those that an incremental run of gat learns from; the others have new events."""
    rate_factor: float = Field(0.3, gt=0, le=1)
    """An incremental run's learning rates, relative to those of a full one."""
    epochs_factor: float = Field(0.5, gt=0, le=1)
    """Its number of epochs likewise."""
    checkpoints: bool = True
    """Keep checkpoints of gat while it trains: a killed run goes on from there and ends with the same weights."""
    keep_compressed: bool = True
    """Compress the challenger of a compressed live release, under the same goal."""
    memory_mb: int = Field(0, ge=0)
    """Address space that training may take; beyond it the run ends and the live release stays. 0 for no limit."""


class ScheduleSettings(Section):
    """When the loop runs by itself, see pipeline/schedule."""

    every_minutes: float = Field(1_440.0, gt=0)
    """A run by time."""
    check_seconds: float = Field(60.0, gt=0)
    """How often all triggers are looked at."""
    volume: int = Field(10_000, ge=1)
    """This many new labels start a run."""
    psi: float = Field(0.2, gt=0)
    """Population stability index of a window that counts as drift."""
    jensen_shannon: float = Field(0.1, gt=0)
    """Jensen-Shannon divergence in bits that does."""
    drift_windows: int = Field(3, ge=1)
    """Consecutive windows that must drift; the trigger is armed again after one window below half of both limits."""
    decay_sigmas: float = Field(3.0, gt=0)
    """Click rate this many standard errors below that of the release's first window starts a run."""
    cooldown_minutes: float = Field(30.0, ge=0)
    """No run within this after the last one, but by hand."""
    max_per_day: int = Field(24, ge=1)
    least_events: int = Field(100, ge=1)
    """No run with fewer new labels."""
    lease_seconds: float = Field(900.0, gt=0)
    """A run that has not renewed its lease for this long may be taken over."""
    stale_hours: float = Field(168.0, gt=0)
    """A live release older than this is reported as stale."""
