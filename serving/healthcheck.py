"""Whether Triton serves: ``python -m serving.healthcheck --config FILE``, for the probes of a container.

Triton's own health says ready over a dead python step, and not ready for good after a failed load, so the model's
ready endpoint is asked, and then the model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from core.errors import ConchError
from core.sections import ServingSettings
from core.settings import load_settings
from serving.client import ConchClient

PROBE_USER = "conch-probe"


def complaint_about(serving: ServingSettings, seconds: float) -> str:
    """What is wrong with the server; "" where it answers a recommendation within ``seconds``."""
    with ConchClient(serving, deadline_seconds=seconds) as client:
        if not client.is_ready():
            return "the ensemble is not ready"
        try:
            client.recommend([PROBE_USER], k=1)
        except ConchError as error:
            return str(error)
    return ""


def main(argv: list[str] | None = None) -> None:
    """Exits with 0 where Triton answers, else with 1 and the reason."""
    parser = argparse.ArgumentParser(prog="serving.healthcheck")
    parser.add_argument("--config", type=Path, action="append", default=[], help="settings file; may repeat")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long an answer may take")
    asked = parser.parse_args(argv)
    found = complaint_about(load_settings(asked.config).serving, asked.seconds)
    if found:
        sys.exit(f"serving.healthcheck: {found}")


if __name__ == "__main__":
    main()
