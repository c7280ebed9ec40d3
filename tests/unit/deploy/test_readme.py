"""The commands of deploy/README.md are ones that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import yaml

from core.settings import ROOT
from tests.unit.deploy.commands import check_command

README = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")


def conch_commands() -> Iterator[list[str]]:
    """What runs inside containers."""
    for line in re.findall(r"docker compose .*? (?:run --rm loop|exec gateway conch) ([^#`\n]+)", README):
        yield ["conch", *shlex.split(line)]
    for line in re.findall(r"kubectl exec \S+ -- ([^`]+)`", README):
        yield shlex.split(line)


def test_verbs_in_the_readme_exist() -> None:
    found = list(conch_commands())
    assert len(found) == 4
    for command in found:
        check_command(command)


def test_values_in_the_readme_exist() -> None:
    values = yaml.safe_load((ROOT / "deploy" / "helm" / "conch" / "values.yaml").read_text(encoding="utf-8"))
    named = re.findall(r"--set ([a-zA-Z.]+)=", README)
    assert len(named) == 5
    for name in named:
        group, _, key = name.partition(".")
        assert key in values[group]


def test_files_in_the_readme_exist() -> None:
    table = README.split("## A replica")[0]
    for name in re.findall(r"`([a-z/]+(?:\.[a-zA-Z]+)*(?:\.[a-z]+|/|file))`", table):
        assert (ROOT / "deploy" / name).exists() or (ROOT / name).exists(), name
