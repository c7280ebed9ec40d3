"""deploy/compose.yaml, read by the real docker compose: it checks the schema and fills in the variables."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import ROOT, Settings
from serving.gateway.routes import router
from tests import deploy_tools
from tests.unit.deploy.commands import check_command, settings_of

DEPLOY = ROOT / "deploy"
OURS = ("triton", "gateway", "loop", "ingest")
ENTRY = {"triton": ["python", "-m", "serving.container"], "gateway": ["conch"], "loop": ["conch"], "ingest": ["conch"]}


@pytest.fixture
def read(require: Callable[[str, bool, str], None]) -> Callable[..., dict[str, Any]]:
    """Reads compose files as docker compose does."""
    require("compose", deploy_tools.compose().is_file(), "python -m tests.deploy_tools")

    def config(*files: str, **environment: str) -> dict[str, Any]:
        command = [str(deploy_tools.compose()), "--profile", "*", *(f"--file={DEPLOY / file}" for file in files)]
        done = subprocess.run(
            [*command, "config", "--format", "json"],
            capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "variable is not set" not in done.stderr
        return dict(json.loads(done.stdout))

    return config


def toml(found: dict[str, Any]) -> str:
    return Path(found["configs"]["settings"]["file"]).read_text(encoding="utf-8")


def seconds(text: str) -> float:
    parts = re.findall(r"(\d+)([hms])", text)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


def test_every_command_and_setting_exists(read: Callable[..., dict[str, Any]]) -> None:
    found = read("compose.yaml")
    for name in OURS:
        service = found["services"][name]
        given = service.get("command") or ["--config", "/etc/conch/conch.toml"]
        check_command([*ENTRY[name], *given])
        mounted = [one["target"] for one in service["configs"]]
        assert mounted == ["/etc/conch/conch.toml"]
        assert any("/etc/conch/conch.toml" in part for part in given)
    check_command(found["services"]["triton"]["healthcheck"]["test"][1:])
    for file in ("gpu.toml", "cpu.toml"):
        settings_of((DEPLOY / "compose" / file).read_text(encoding="utf-8"))


def test_triton_listens_on_loopback_and_users_reach_the_gateway_on_loopback(
    read: Callable[..., dict[str, Any]],
) -> None:
    found = read("compose.yaml")
    settings = Settings.model_validate(settings_of(toml(found)))
    assert settings.serving.host == "127.0.0.1"
    assert settings.gateway.require_keys
    published = [port for service in found["services"].values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    (gateway,) = found["services"]["pod"]["ports"]
    assert gateway["target"] == settings.gateway.port
    for name in ("triton", "gateway", "loop"):
        assert found["services"][name]["network_mode"] == found["services"][name]["pid"] == "service:pod"


def test_the_gateways_health_is_a_route_and_its_grace_outlasts_the_drain(read: Callable[..., dict[str, Any]]) -> None:
    found = read("compose.yaml")
    gateway, settings = found["services"]["gateway"], Settings.model_validate(settings_of(toml(found))).gateway
    (path,) = re.findall(r"127\.0\.0\.1:\d+(/[a-z/]+)", " ".join(gateway["healthcheck"]["test"]))
    assert path in {route.path for route in router.routes}  # type: ignore[attr-defined]
    assert seconds(gateway["stop_grace_period"]) > settings.drain_seconds + settings.stop_seconds
    assert gateway["depends_on"]["triton"]["condition"] == "service_healthy"


def test_a_gpu_is_asked_for_only_without_the_cpu_file(read: Callable[..., dict[str, Any]]) -> None:
    gpu, cpu = read("compose.yaml"), read("compose.yaml", "compose.cpu.yaml")
    for name in ("triton", "loop"):
        (device,) = gpu["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert "deploy" not in cpu["services"][name]
    assert settings_of(toml(gpu))["serving"]["device"] == "cuda"
    assert settings_of(toml(cpu))["serving"]["device"] == "cpu"


def test_no_container_of_ours_has_rights_that_it_does_not_need(read: Callable[..., dict[str, Any]]) -> None:
    for name, service in read("compose.yaml")["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "privileged" not in service, name


def test_events_go_to_the_broker_when_the_variables_say_so(read: Callable[..., dict[str, Any]]) -> None:
    found = read("compose.yaml", CONCH_NATS="nats://nats:4222", CONCH_REDIS="redis://redis:6379/0")
    for name in ("gateway", "loop", "ingest"):
        assert "--set=feedback.nats=nats://nats:4222" in found["services"][name]["command"]
        assert "--set=feedback.redis=redis://redis:6379/0" in found["services"][name]["command"]


def test_prometheus_reads_the_ports_that_the_containers_listen_on(require: Callable[[str, bool, str], None]) -> None:
    require("prometheus", shutil.which("promtool") is not None, "apt-get install prometheus")
    folder = DEPLOY / "prometheus"
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yaml"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = yaml.safe_load((folder / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    targets = {target for job in jobs for group in job["static_configs"] for target in group["targets"]}
    settings = Settings()
    assert targets == {f"pod:{settings.gateway.port}", f"pod:{settings.serving.metrics_port}"}
