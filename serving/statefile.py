"""The file that tells publishers and the gateway of a running Triton; only its owner may read it, for the secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

from core.sections import ServingSettings


def state_file(var: Path, serving: ServingSettings) -> Path:
    """Where it lies; ``var`` is ``paths.var``."""
    return var / "run" / f"triton-{serving.grpc_port}" / "server.json"


def write_state(var: Path, serving: ServingSettings, pid: int, secret: str, repository: Path) -> None:
    """Writes it.

    Args:
        var: ``paths.var``.
        serving: Addresses.
        pid: Of tritonserver, as those who read the file see it.
        secret: For model control.
        repository: What it serves.
    """
    state = {
        "pid": pid,
        "http": f"{serving.host}:{serving.http_port}",
        "grpc": f"{serving.host}:{serving.grpc_port}",
        "metrics": f"{serving.metrics_host or serving.host}:{serving.metrics_port}",
        "secret": secret,
        "repository": str(repository.resolve()),
    }
    path = state_file(var, serving)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(state, stream)
