"""`conch gateway` where another container runs Triton and another machine publishes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def gateway(var: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "gateway", "--set", f'paths.var="{var}"']
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_gateway_that_starts_no_triton_ends_with_the_reason_when_none_runs(tmp_path: Path) -> None:
    done = gateway(tmp_path, "gateway.starts_triton=false", "gateway.operator=false")
    assert done.returncode == 2
    assert "no Triton runs" in done.stderr
    assert str(tmp_path / "run" / "triton-8001" / "server.json") in "".join(done.stderr.split())


def test_no_operators_key_is_made_when_the_gateway_has_no_operator(tmp_path: Path) -> None:
    gateway(tmp_path, "gateway.starts_triton=false", "gateway.operator=false")
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["pseudonym.key", "token.keys"]
