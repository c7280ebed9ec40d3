"""The autoscaler's queries, asked of a real Prometheus with made series (promtool)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import ROOT

SERIES = [
    # pod a: `rank` waits 30 ms a request, `context` 1 ms; pod b: idle; pod c: refuses without one success.
    ('nv_inference_queue_duration_us{namespace="n",pod="a",model="rank",version="1"}', "0+18000000x10"),
    ('nv_inference_request_success{namespace="n",pod="a",model="rank",version="1"}', "0+600x10"),
    ('nv_inference_queue_duration_us{namespace="n",pod="a",model="context",version="1"}', "0+600000x10"),
    ('nv_inference_request_success{namespace="n",pod="a",model="context",version="1"}', "0+600x10"),
    ('nv_inference_queue_duration_us{namespace="n",pod="b",model="rank",version="1"}', "5+0x10"),
    ('nv_inference_request_success{namespace="n",pod="b",model="rank",version="1"}', "7+0x10"),
    ('nv_inference_queue_duration_us{namespace="other",pod="a",model="rank",version="1"}', "0+99000000x10"),
    ('nv_inference_request_success{namespace="other",pod="a",model="rank",version="1"}', "0+1x10"),
    ('conch_requests_waiting{namespace="n",pod="a"}', "9x6 3x3"),
    ('conch_requests_waiting{namespace="n",pod="b"}', "0x10"),
]
EXPECTED = {
    "conch_triton_queue_milliseconds": {"a": 30, "b": 0},
    "conch_requests_waiting": {"a": 3, "b": 0},
}


def rules() -> list[dict[str, Any]]:
    text = (ROOT / "deploy" / "prometheus" / "adapter.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load(text)["rules"]["custom"])


def query(rule: dict[str, Any]) -> str:
    """As prometheus-adapter fills it in for pods of one namespace."""
    filled = {
        "<<.Series>>": rule["seriesQuery"].partition("{")[0],
        "<<.LabelMatchers>>": 'namespace="n",pod=~"a|b"',
        "<<.GroupBy>>": "pod",
    }
    text = str(rule["metricsQuery"])
    for mark, value in filled.items():
        text = text.replace(mark, value)
    return text


@pytest.fixture
def promtool(require: Callable[[str, bool, str], None]) -> str:
    require("prometheus", shutil.which("promtool") is not None, "apt-get install prometheus")
    return "promtool"


def test_each_pod_gets_the_wait_of_its_slowest_model_and_an_idle_one_none(promtool: str, tmp_path: Path) -> None:
    tests = [
        {
            "expr": query(rule),
            "eval_time": "10m",
            "exp_samples": [
                {"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in EXPECTED[rule["name"]["as"]].items()
            ],
        }
        for rule in rules()
    ]
    series = [{"series": name, "values": values} for name, values in SERIES]
    file = tmp_path / "adapter.test.yaml"
    file.write_text(
        yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}),
        encoding="utf-8",
    )
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_mark_of_the_adapter_is_filled_in() -> None:
    assert len(rules()) == len(EXPECTED)
    for rule in rules():
        assert "<<" not in query(rule)
