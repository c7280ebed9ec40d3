"""The gate's thresholds, read from one file. Nothing has a default: what is not written down does not pass."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from core.errors import GateError
from core.sections import Section
from core.settings import ROOT


class DataRules(Section):
    """G0: is the data of the run fit to learn from?"""

    least_events: int = Field(ge=0)
    volume_low: float = Field(ge=0)
    volume_high: float = Field(gt=0)
    duplicate_share: float = Field(ge=0, le=1)
    late_share: float = Field(ge=0, le=1)
    quarantine_share: float = Field(ge=0, le=1)
    label_rate_low: float = Field(ge=0, le=1)
    label_rate_high: float = Field(ge=0, le=1)
    user_share: float = Field(gt=0, le=1)
    unknown_item_share: float = Field(ge=0, le=1)


class OfflineRules(Section):
    """G1: a later window, paired over users."""

    margin: float = Field(ge=0, lt=1)
    ndcg_k: int = Field(ge=1)
    recall_k: int = Field(ge=1)
    least_users: int = Field(ge=2)
    slice_margin: float = Field(ge=0, lt=1)
    slice_least_users: int = Field(ge=2)
    family_error: float = Field(gt=0, lt=1)
    coverage_ratio: float = Field(ge=0)
    tail_ratio: float = Field(ge=0)
    calibration_slack: float = Field(ge=0)
    first_ndcg: float = Field(ge=0)


class OffPolicyRules(Section):
    """G2: logged propensities, see feedback/estimates.py."""

    required: bool
    margin: float = Field(ge=0)
    least_choices: int = Field(ge=1)
    effective_share: float = Field(ge=0, le=1)
    overlap: float = Field(ge=0, le=1)
    largest_weight_share: float = Field(gt=0, le=1)


class ParityRules(Section):
    """G3: Triton gives what the graphs give in process."""

    overlap: float = Field(ge=0, le=1)
    score_drift: float = Field(ge=0)
    users: int = Field(ge=1)


class CostRules(Section):
    """G4: latency, throughput and size beside the live release."""

    rounds: int = Field(ge=1)
    requests: int = Field(ge=10)
    p99_ratio: float = Field(gt=0)
    throughput_ratio: float = Field(gt=0)
    size_ratio: float = Field(gt=0)
    size_mb: float = Field(gt=0)


class InfraRules(Section):
    """G5: a private server with production flags."""

    malformed_requests: int = Field(ge=1)
    golden_users: int = Field(ge=1)
    recovery_seconds: float = Field(gt=0)


class PolicyRules(Section):
    """G6: when publishing is allowed."""

    publishes_per_day: int = Field(ge=0)
    freeze: tuple[str, ...]
    needs_approval: bool


class GateRules(Section):
    """All thresholds."""

    data: DataRules
    offline: OfflineRules
    off_policy: OffPolicyRules
    parity: ParityRules
    cost: CostRules
    infra: InfraRules
    policy: PolicyRules

    def digest(self) -> str:
        """sha256 of the rules: part of every report and blessing."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def read_rules(file: Path) -> GateRules:
    """Reads a rules file; a relative path is looked for in the project.

    Raises:
        GateError: No such file, no TOML, a key that is missing, unknown or out of range.
    """
    path = ROOT / file
    try:
        return GateRules.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise GateError("the gate has no rules", where=str(path), next_step="set gate.rules") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GateError("the gate's rules are no TOML", where=str(path), found=str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise GateError(
            "the gate does not run with these rules",
            where=f"{path}, key {'.'.join(map(str, first['loc']))}",
            expected="every key of config/gate/rules.toml, and no other",
            found=first["msg"],
        ) from None
