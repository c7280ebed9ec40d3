"""A short load scenario from start to end: real Triton, real Locust, nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.settings import ROOT

SCENARIO = """
title = "short"
protocol = "{protocol}"
stages = [{{ users = 2, seconds = 1, measured = false }}, {{ users = 2, seconds = 3 }}]
[objectives]
p99_ms = {bound}
"""


def run(var: Path, folder: Path, protocol: str, bound: float) -> subprocess.CompletedProcess[str]:
    file = folder / f"{protocol}.toml"
    file.write_text(SCENARIO.format(protocol=protocol, bound=bound))
    command = [sys.executable, "-m", "loadtests.run", str(file), "--var", str(var), "--out", str(folder / protocol)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(("protocol", "bound", "code"), [("grpc", 60_000, 0), ("http", 0.001, 1)])
def test_scenario_runs_is_judged_and_leaves_nothing_running(
    smoke_var: Path, tmp_path: Path, protocol: str, bound: float, code: int
) -> None:
    done = run(smoke_var, tmp_path, protocol, bound)
    assert done.returncode == code, done.stdout + done.stderr
    told = json.loads((tmp_path / protocol / "summary.json").read_text())
    assert told["figures"]["requests"] > 0
    assert told["figures"]["failed_share"] == 0
    assert (tmp_path / protocol / "locust.html").stat().st_size > 0
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
    assert left == []


def test_activations_take_turns_between_two_releases_and_no_request_fails(smoke_var: Path, tmp_path: Path) -> None:
    var = Path(shutil.copytree(smoke_var, tmp_path / "var", symlinks=True))
    file = tmp_path / "turns.toml"
    file.write_text(
        SCENARIO.format(protocol="gateway", bound=60_000).replace("seconds = 3", "seconds = 14")
        + '[[faults]]\nat_seconds = 2\naction = "activate"\ntimes = 2\nevery_seconds = 5\n'
    )
    command = [sys.executable, "-m", "loadtests.run", str(file), "--var", str(var), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (var / "audit" / "audit.jsonl").read_text().splitlines()]
    live = [record["after"]["stable"] for record in records if record["action"] == "activate"]
    older, newer = live[-2:]
    assert live[-3:] == [newer, older, newer]
    assert older != newer


def test_open_loop_measures_a_rate_and_the_steps(smoke_var: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "loadtests.open_loop", "--var", str(smoke_var), "--rates", "20", "--seconds", "3",
        "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads((tmp_path / "curve.json").read_text())["points"]
    assert point["failed_share"] == 0
    assert 0 < point["p50_ms"] <= point["p99_ms"]
    steps = {step["name"]: step for step in point["steps"]}
    assert steps["rank"]["requests"] > 0
    assert steps["rank"]["milliseconds"]["compute_infer"] > 0
    assert (tmp_path / "curve.png").stat().st_size > 0
