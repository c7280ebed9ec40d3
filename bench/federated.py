"""Keeps what `conch federate --study` measured, with the machine and the commit, as a result file.

.venv/bin/conch dataset && .venv/bin/conch federate --study
.venv/bin/python -m bench.federated ml-100k
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bench.machine import measured_commit, this_machine
from core.artifacts import write_json
from core.settings import ROOT
from pipeline.federated_study import federated_file


def main(
    name: Annotated[str, typer.Argument(help="Name of the result file.")],
    var: Annotated[Path, typer.Option(help="Where the study was written.")] = Path("var"),
) -> None:
    """Writes bench/results/federated-<name>.json."""
    head = {
        "command": f"conch dataset; conch federate --study; .venv/bin/python -m bench.federated {name}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": this_machine().line,
        "commit": measured_commit(),
    }
    target = ROOT / "bench" / "results" / f"federated-{name}.json"
    write_json(target, head | json.loads(federated_file(var).read_text(encoding="utf-8")))
    sys.stdout.write(f"wrote {target}\n")


if __name__ == "__main__":
    typer.run(main)
