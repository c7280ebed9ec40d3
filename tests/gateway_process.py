"""`conch gateway` as a process with its own Triton, for tests that see it as its clients do."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from core.processes import end, free_ports
from core.settings import Settings


class Running:
    """A gateway process with its own Triton.

    Args:
        settings: Where its files lie.
        log: Takes what it says.
        more: Further options of the command line.
    """

    def __init__(self, settings: Settings, log: Path, more: tuple[str, ...] = ()) -> None:
        names = ("gateway.port", "serving.http_port", "serving.grpc_port", "serving.metrics_port")
        ports = dict(zip(names, free_ports(4), strict=True))
        self.var = settings.paths.var
        self.state_file = self.var / "run" / f"triton-{ports['serving.grpc_port']}" / "server.json"
        self.url = f"http://127.0.0.1:{ports['gateway.port']}"
        options = {"paths.var": f'"{self.var}"', "gateway.requests_per_second": 1e6, "gateway.burst": 1e6, **ports}
        options |= {"gateway.explore_temperature": 0, "gateway.explore_epsilon": 0, "gateway.deadline_ms": 5000}
        options |= {"gateway.json_logs": "true", "gateway.recent_ms": 5000}  # a busy machine must not hide a like
        command = [str(Path(sys.executable).with_name("conch")), "gateway", *more]
        for key, value in options.items():
            command += ["--set", f"{key}={value}"]
        self.log = log
        self.stream = log.open("wb")
        self.process = subprocess.Popen(command, stdout=self.stream, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        until = time.monotonic() + 90
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health/ready", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(self.log.read_text())

    def stop(self) -> int:
        code = end(self.process, 60)
        self.stream.close()
        return code

    def ask(self, client: httpx.Client, user: str, k: int = 10) -> dict:
        reply = client.post("/v1/recommendations", json={"user_id": user, "k": k})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def like(self, client: httpx.Client, answer: dict, item: str, event_id: str) -> None:
        event = {
            "event_id": event_id, "type": "like", "user_id": answer["user_id"], "item_id": item,
            "request_id": answer["request_id"], "token": answer["token"], "event_time_ms": time.time_ns() // 1_000_000,
        }  # fmt: skip
        reply = client.post("/v1/events", json={"events": [event]})
        assert reply.status_code == 200, reply.text
        assert reply.json()["acknowledgements"][0]["status"] == "stored"


@contextlib.contextmanager
def running_gateway(settings: Settings, folder: Path, more: tuple[str, ...] = ()) -> Iterator[Running]:
    """A gateway that answers, ended with this context; its log lies in ``folder``."""
    running = Running(settings, folder / "log.txt", more)
    try:
        running.wait()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
