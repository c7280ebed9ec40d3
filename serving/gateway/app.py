"""The FastAPI app around a gateway."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.body import MAX_DEPTH
from serving.gateway.demo import admin, page
from serving.gateway.parts import Gateway, Wiring
from serving.gateway.problems import MEDIA_TYPE, PROBLEM_SCHEMA, Problem
from serving.gateway.routes import router
from serving.gateway.trace import HEADER, begin, current, log_request
from serving.gateway.wire import (
    EXAMPLE_ANSWER,
    EXAMPLE_EVENTS,
    EXAMPLE_EVENTS_ANSWER,
    EXAMPLE_REQUEST,
    EventIn,
    EventsAnswer,
    EventsRequest,
    RecommendationAnswer,
    RecommendationRequest,
)

SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
]
BODIES: dict[tuple[str, str], tuple[str, Any, str, Any]] = {
    ("/v1/recommendations", "post"): ("RecommendationRequest", EXAMPLE_REQUEST, "RecommendationAnswer", EXAMPLE_ANSWER),
    ("/v1/events", "post"): ("EventsRequest", EXAMPLE_EVENTS, "EventsAnswer", EXAMPLE_EVENTS_ANSWER),
}
"""Request and answer of the routes that read their bodies themselves."""
LIMITED = frozenset(path for path, _ in BODIES)
"""Routes with a limit to how many are at work."""
FAULTS = {
    "/v1/recommendations": (400, 401, 403, 408, 413, 415, 422, 429, 503),
    "/v1/events": (400, 401, 403, 408, 413, 415, 422, 429, 503),
    "/v1/users/{user_id}": (400, 401, 403, 422, 429, 503),
    "/v1/admin/status": (401, 403, 409, 429),
    "/v1/admin/retrain": (401, 403, 409, 429, 501),
    "/v1/admin/progress": (401, 403, 409, 429, 501),
    "/v1/admin/rollback": (401, 403, 409, 429, 501),
}
log = logging.getLogger("conch.gateway")


def make_app(wiring: Wiring) -> FastAPI:
    """The app; its gateway starts and stops with it."""
    gateway = Gateway(wiring)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with gateway:
            yield

    app = FastAPI(title="Conch", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    app.include_router(router)
    app.include_router(admin)
    if wiring.settings.demo:
        app.include_router(page)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(Around, gateway=gateway)
    if wiring.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(wiring.settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["content-type", "x-api-key", "authorization"],
        )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


class Around:
    """Counts, times and logs every request, gives it an id, adds safe headers, and closes connections while draining.

    Args:
        app: The app inside.
        gateway: Whose requests these are.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app, self._gateway = app, gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        trace = begin(scope["headers"])

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *SAFE_HEADERS, (HEADER, trace.encode())]
                if self._gateway.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        limited = scope["path"] in LIMITED
        try:
            if limited:
                self._gateway.check_room()  # before routing and parsing, which cost more than the refusal
            await self._app(scope, receive, send_more)
        except Problem as crowded:
            await crowded.response(trace)(scope, receive, send_more)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # no free path: its ids would make endless series
            name = scope["path"] if limited else route
            self._gateway.metrics.requests.labels(name, str(status)).inc()
            seconds = time.perf_counter() - started
            self._gateway.metrics.seconds.labels(name).observe(seconds)
            log_request(name, scope["method"], status, 1_000 * seconds)


async def _problem(_: Request, error: Exception) -> Response:
    return (error if isinstance(error, Problem) else Problem(500, "internal error")).response(current())


async def _invalid(_: Request, error: Exception) -> Response:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    where = ".".join(str(part) for part in first.get("loc", ()))
    return Problem(422, "the request is not valid", where=where, expected=first.get("msg")).response(current())


async def _http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = Problem(status, {404: "no such page", 405: "not with this method"}.get(status, "refused")).response(
        current()
    )
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _bug(request: Request, error: Exception) -> Response:
    log.error("bug while answering %s", request.scope.get("path"), exc_info=error)
    return Problem(500, "internal error").response(current())


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the bodies that the routes read themselves."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = FastAPI.openapi(app)
    models = (RecommendationRequest, RecommendationAnswer, EventsRequest, EventsAnswer, EventIn)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(schemas["$defs"])
    components["schemas"].pop("HTTPValidationError", None)
    components["schemas"].pop("ValidationError", None)
    components["schemas"]["Problem"] = PROBLEM_SCHEMA
    items = components["schemas"]["EventsRequest"]["properties"]["events"]
    items["items"] = {"anyOf": [{"$ref": "#/components/schemas/EventIn"}, {"type": "object"}]}
    components["securitySchemes"] = {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    for (path, method), (asked, example, answer, shown) in BODIES.items():
        operation = document["paths"][path][method]
        operation["requestBody"] = {
            "required": True,
            "description": f"Strict JSON: no key twice, no NaN, at most {MAX_DEPTH} levels of nesting.",
            "x-max-depth": MAX_DEPTH,
            "content": {"application/json": _content(asked, example)},
        }
        operation["responses"]["200"]["content"] = {"application/json": _content(answer, shown)}
    for path, codes in FAULTS.items():
        for operation in document["paths"][path].values():
            problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            told = {str(code): {"description": "Problem", "content": problem} for code in codes}
            operation["responses"] = {k: v for k, v in operation["responses"].items() if k != "422"} | told
            operation["security"] = [{"key": []}] if "admin" in path or "users" in path else [{"key": []}, {}]
    document["paths"]["/health/ready"]["get"]["responses"]["503"] = {"description": "Not ready"}
    document["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    app.openapi_schema = document
    return document


def _content(model: str, example: Any) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model}"}, "examples": {"usual": {"value": example}}}
