"""The gateway's OpenAPI document holds: requests made from it, before a real Triton (CONCH_FUZZ: how many each)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pipeline.gateway import OPERATOR_FILE
from serving.activate import install_release
from serving.gateway.body import MAX_DEPTH
from tests.gateway_process import Running, running_gateway
from tests.triton.conftest import settings_in

EXAMPLES = int(os.environ.get("CONCH_FUZZ", "15"))
"""Requests per operation and mode, valid and not valid."""
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [
    ("/v1/recommendations", "post"),
    ("/v1/events", "post"),
    ("/v1/users/{user_id}", "delete"),
    ("/v1/admin/status", "get"),
    ("/v1/admin/progress", "get"),
    ("/v1/admin/retrain", "post"),
    ("/v1/admin/rollback", "post"),
    ("/health/live", "get"),
    ("/health/ready", "get"),
    ("/metrics", "get"),
]


@pytest.fixture(scope="module")
def gateway(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = settings_in(tmp_path_factory.mktemp("openapi"))
    install_release(release, settings.paths.var / "repository")
    with running_gateway(settings, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def document(gateway: Running) -> dict:
    return dict(httpx.get(f"{gateway.url}/openapi.json", timeout=20).json())


def test_every_operation_is_asked(document: dict) -> None:
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
    + [(*operation, GenerationMode.NEGATIVE) for operation in OPERATIONS[:3]],  # the others take nothing
)
def test_answers_are_as_documented(
    gateway: Running, document: dict, path: str, method: str, mode: GenerationMode
) -> None:
    project = ProjectConfig(generation=GenerationConfig(modes=[mode]))
    config = SchemathesisConfig(projects=ProjectsConfig(default=project))
    operation = schemathesis.openapi.from_dict(document, config=config)[path][method]
    key = (gateway.var / "keys" / OPERATOR_FILE).read_text(encoding="utf-8").strip()

    @given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis_settings(
        max_examples=EXAMPLES, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def ask(case: Case) -> None:
        response = case.call(base_url=gateway.url, headers={"X-API-Key": key}, timeout=20)
        documented_503 = response.status_code == 503 and "503" in document["paths"][path][method]["responses"]
        case.validate_response(response, checks=CHECKS if documented_503 else [not_a_server_error, *CHECKS])

    ask()
    assert gateway.process.poll() is None


def test_examples_fit_their_schemas(document: dict) -> None:
    found = 0
    for methods in document["paths"].values():
        for operation in methods.values():
            for part in (operation.get("requestBody", {}), *operation["responses"].values()):
                for content in part.get("content", {}).values():
                    for example in content.get("examples", {}).values():
                        schema = {**content["schema"], "components": document["components"]}
                        jsonschema_rs.Draft202012Validator(schema).validate(example["value"])
                        found += 1
    assert found == 4


def test_depth_limit_is_documented_and_held(gateway: Running, document: dict) -> None:
    for path in ("/v1/recommendations", "/v1/events"):
        assert document["paths"][path]["post"]["requestBody"]["x-max-depth"] == MAX_DEPTH
        body = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
        reply = httpx.post(f"{gateway.url}{path}", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 400
        assert str(MAX_DEPTH) in reply.json()["expected"]
