"""What README.md says, runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from core.settings import ROOT, Settings
from pipeline.cli import app
from serving.server import TritonServer

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example_runs_against_the_server(
    smoke_settings: Settings, smoke_var: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    with TritonServer(smoke_settings, free_ports=True) as server:
        exec(example.replace("127.0.0.1:8001", server.address), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all("r000001" in line for line in lines)


def test_every_conch_verb_and_option_exists() -> None:
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    used = re.findall(r"\.venv/bin/conch (\w+)([^\n`]*)", README)
    assert used
    for verb, rest in used:
        known = {option for parameter in verbs[verb].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, verb


def test_every_make_target_exists() -> None:
    for target in set(re.findall(r"make ([a-z]+)(?=[\s`)])", README)):
        done = subprocess.run(["make", "-n", "-C", str(ROOT), target], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_every_linked_file_exists() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
