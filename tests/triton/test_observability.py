"""Alert rules and dashboard ask for metrics that the gateway and Triton really have, and the rules do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import yaml

from core.settings import ROOT
from serving.client import ConchClient
from serving.gateway.metrics import Metrics
from serving.server import TritonServer

RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "conch.json"
NAME = re.compile(r"\b(?:conch|nv)(?:_[a-z0-9]+)+\b")
RECORD = re.compile(r"\bconch:[a-z0-9_:]+\b")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def questions() -> Iterator[str]:
    """Every expression of rules, panels and the autoscaler."""
    yield from (rule["expr"] for rule in rules())
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for rule in yaml.safe_load((RULES / "adapter.yaml").read_text(encoding="utf-8"))["rules"]["custom"]:
        yield from (rule["seriesQuery"], rule["metricsQuery"])


def exposed(page: str) -> set[str]:
    """Names of series in Prometheus' text format, by its HELP lines: those without a sample yet, too."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + end for name, kind in kinds.items() for end in parts.get(kind, ("",))}


def test_every_metric_that_is_asked_for_exists(server: TritonServer, client: ConchClient) -> None:
    client.recommend(["somebody"], k=3)
    serving = server.settings.serving
    known = exposed(httpx.get(f"http://{serving.host}:{serving.metrics_port}/metrics").text)
    known |= exposed(Metrics().page().decode())
    asked = {name for question in questions() for name in NAME.findall(question)}
    assert len(asked) > 20
    assert asked - known == set()


def test_recorded_series_that_are_used_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert {name for question in questions() for name in RECORD.findall(question)} == recorded


def test_labels_of_requests_are_those_of_the_rules() -> None:
    metrics = Metrics()
    metrics.requests.labels("/v1/recommendations", "503").inc()
    metrics.answers.labels("r1", "fallback", "true").inc()
    metrics.impressions.labels("lost").inc()
    page = metrics.page().decode()
    assert 'conch_requests_total{route="/v1/recommendations",status="503"} 1.0' in page
    assert 'conch_answers_total{arm="fallback",degraded="true",release="r1"} 1.0' in page
    assert 'conch_impressions_total{fate="lost"} 1.0' in page


def test_rules_fire_when_they_should_and_only_then(require: Callable[[str, bool, str], None]) -> None:
    require("prometheus", shutil.which("promtool") is not None, "apt-get install prometheus")
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts.test.yaml"], cwd=RULES, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested = yaml.safe_load((RULES / "alerts.test.yaml").read_text(encoding="utf-8"))["tests"]
    fired = {one["alertname"] for test in tested for one in test["alert_rule_test"] if one.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}, "every alert fires in some test"


def test_panels_lie_beside_each_other_and_have_a_question() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert all(panel["targets"] and panel["title"] for panel in panels)


@pytest.mark.parametrize("wrong", ["conch_ready_not", "nv_inference_nothing"])
def test_a_metric_that_nobody_has_would_be_found(wrong: str) -> None:
    assert wrong not in exposed(Metrics().page().decode())
    assert NAME.findall(f"rate({wrong}[5m])") == [wrong]
