"""A scenario: who sends how much for how long, what goes wrong meanwhile, and what must hold."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import SettingsError

SCENARIOS = Path(__file__).with_name("scenarios")
Protocol = Literal["grpc", "http", "gateway"]


class Frozen(BaseModel):
    """Base: frozen; a typo is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Stage(Frozen):
    """Users at once, for a while."""

    users: int = Field(ge=0)
    seconds: float = Field(gt=0)
    spawn_rate: float = Field(100.0, gt=0)
    """Users started or stopped per second on the way there."""
    measured: bool = True
    """Whether its requests count for the objectives; a warm-up does not."""


class Fault(Frozen):
    """What is done to the server while the load runs."""

    at_seconds: float = Field(ge=0)
    action: Literal["kill-stub", "kill-server", "activate"]
    """kill-stub ends one python step; activate makes the older of the two newest releases live, next the newer, and so
    on."""
    times: int = Field(1, ge=1)
    """How often."""
    every_seconds: float = Field(30.0, gt=0)
    """From one time to the next."""

    @property
    def moments(self) -> list[float]:
        """When, in seconds since the start."""
        return [self.at_seconds + time * self.every_seconds for time in range(self.times)]


class Objectives(Frozen):
    """What must hold over the measured stages; what is not named is not asked."""

    p50_ms: float | None = Field(None, gt=0)
    p99_ms: float | None = Field(None, gt=0)
    most_ms: float | None = Field(None, gt=0)
    """Of the slowest request."""
    failed_share: float = Field(0.0, ge=0, le=1)
    degraded_share: float | None = Field(None, ge=0, le=1)
    """Answers made from popularity; the gateway only."""
    refused_share: float = Field(0.0, ge=0, le=1)
    """Requests that the gateway turned away with 503 and a time to come back."""
    least_rps: float | None = Field(None, gt=0)
    recovered_seconds: float | None = Field(None, gt=0)
    """After the last fault, or where there is none after the last measured stage: how soon answers are whole again."""
    memory_mb_per_minute: float | None = Field(None, gt=0)
    """Most that the servers' memory may grow after the warm-up."""
    descriptors_per_minute: float | None = Field(None, gt=0)
    threads_per_minute: float | None = Field(None, gt=0)


class Scenario(Frozen):
    """One load test."""

    title: str
    protocol: Protocol
    stages: tuple[Stage, ...] = Field(min_length=1)
    faults: tuple[Fault, ...] = ()
    objectives: Objectives
    k: int = Field(10, ge=1)
    batch: int = Field(1, ge=1, le=64)
    """Users per request; Triton only."""
    pause_seconds: float = Field(0.0, ge=0)
    """Mean pause of a user between two requests, exponential; 0 asks again at once."""
    click_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Answers that are followed by a click; the gateway only."""
    skew: float = Field(1.0, ge=0)
    """Power law by which users are drawn: the r-th weighs r^-skew."""
    new_user_share: float = Field(0.05, ge=0, le=1)
    """Requests for users whom nobody knows."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.protocol != "gateway" and (self.click_share or self.objectives.degraded_share is not None):
            raise ValueError("clicks and degraded answers are the gateway's")
        if self.protocol == "gateway" and self.batch != 1:
            raise ValueError("the gateway takes one user per request")
        if not any(stage.measured for stage in self.stages):
            raise ValueError("no stage is measured")
        return self

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def warm_up_seconds(self) -> float:
        """Until the first measured stage."""
        first = next(place for place, stage in enumerate(self.stages) if stage.measured)
        return sum(stage.seconds for stage in self.stages[:first])

    @property
    def hurt_until_seconds(self) -> float:
        """When the last harm was done: the last fault, or else the end of the last measured stage."""
        if self.faults:
            return max(fault.moments[-1] for fault in self.faults)
        last = max(place for place, stage in enumerate(self.stages) if stage.measured)
        return sum(stage.seconds for stage in self.stages[: last + 1])

    def stage_at(self, seconds: float) -> Stage | None:
        """The stage after so many seconds; None when all are over."""
        for stage in self.stages:
            if seconds < stage.seconds:
                return stage
            seconds -= stage.seconds
        return None


def known_scenarios() -> list[str]:
    """Names of the scenarios that come with Conch."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def load_scenario(name: str) -> Scenario:
    """A scenario by name, or by path of a TOML file.

    Raises:
        SettingsError: No such scenario, or a file that is none.
    """
    path = Path(name) if name.endswith(".toml") else SCENARIOS / f"{name}.toml"
    try:
        return Scenario.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SettingsError(
            "no such scenario", where="SCENARIO", expected=" | ".join(known_scenarios()), found=name
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError("not TOML", where=str(path), found=str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(
            "not a scenario", where=f"{path}, {'.'.join(map(str, first['loc']))}", found=first["msg"]
        ) from None
