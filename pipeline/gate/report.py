"""The gate's report for people (Markdown) and for programs (JSON), and the blessing where it passed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core.artifacts import replace_file, sha256_of
from pipeline.gate.findings import GateReport
from serving.blessing import Blessing, load_private_key, sign, write_blessing

BLESSING_DAYS = 7


def reports_folder(var: Path) -> Path:
    """Where reports lie."""
    return var / "reports" / "gate"


def write_report(report: GateReport, var: Path) -> Path:
    """Writes <release id>.json and .md; gives back the JSON's path."""
    folder = reports_folder(var)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.challenger}.json"
    facts = {
        **asdict(report), "passed": report.passed, "canary_only": report.canary_only,
        "verdicts": report.verdicts, "refusals": report.refusals,
    }  # fmt: skip
    replace_file(path, (json.dumps(_finite(facts), indent=1, allow_nan=False) + "\n").encode())
    replace_file(path.with_suffix(".md"), as_markdown(report).encode())
    return path


def bless(report: GateReport, file: Path, var: Path, now: datetime) -> Path | None:
    """Signs a blessing where the gate passed; None where it did not: nothing is signed then."""
    if not report.passed:
        return None
    blessing = Blessing(
        schema_version=1,
        release_id=report.challenger,
        manifest_sha256=report.challenger_digest,
        report_sha256=sha256_of(file),
        created=now,
        expires=now + timedelta(days=BLESSING_DAYS),
        key="",
        signature="",
    )
    return write_blessing(var, sign(blessing, load_private_key(var / "keys")))


def as_markdown(report: GateReport) -> str:
    """One page."""
    word = "passed, as a canary only" if report.canary_only else "passed" if report.passed else "refused"
    opponent = report.champion or "popularity: there is no live release, this is the first"
    better = f"Better than {'the live release' if report.champion else 'popularity'}." if report.better else ""
    lines = [
        f"# Gate: {report.challenger} {word}",
        "",
        f"Against {opponent}, {report.created}, {report.seconds:.1f} s. Rules {report.rules_digest[:12]}. {better}",
        "",
    ]
    if report.refusals:
        lines += ["Why it was refused:", "", *(f"- {reason}" for reason in report.refusals), ""]
    lines += ["| gate | check | verdict | found |", "|---|---|---|---|"]
    lines += [f"| {f.gate} | {f.check} | {f.verdict} | {f.reason.replace('|', '/')} |" for f in report.findings]
    return "\n".join(lines) + "\n"


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have, and plain types for numpy's."""
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
