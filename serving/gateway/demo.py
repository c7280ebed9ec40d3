"""The demo page, what it shows beside the API, and the operator's verbs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from core.errors import ConchError, RequestError
from core.tensors import ENSEMBLE
from serving.gateway.access import admit
from serving.gateway.admin import Status
from serving.gateway.body import read_json, validated
from serving.gateway.problems import Problem
from serving.gateway.routes import gateway_of
from serving.gateway.upstream import TritonFault
from serving.gateway.wire import RecommendationRequest
from serving.pointer import model_of

PAGE = Path(__file__).with_name("page")
FILES = {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}
page = APIRouter()
admin = APIRouter(prefix="/v1/admin", tags=["operator"])


@page.get("/", include_in_schema=False)
async def index() -> FileResponse:
    return FileResponse(PAGE / "index.html", media_type="text/html")


@page.get("/page/{name}", include_in_schema=False)
async def file(name: str) -> FileResponse:
    if name not in FILES:
        raise Problem(404, "no such file")
    return FileResponse(PAGE / name, media_type=FILES[name])


@page.get("/v1/demo", include_in_schema=False)
async def facts(request: Request) -> dict[str, Any]:
    """What the page shows around the slate."""
    gateway = gateway_of(request)
    admit(request, gateway, "recommend")
    pointer, view = gateway.pointer.current(), gateway.views.live()
    if pointer is not None:
        view = gateway.views.get(pointer.stable) or view
    return {
        "users": [] if view is None else await asyncio.to_thread(view.some_users),
        "stable": None if view is None else view.info.release_id,
        "canary": None if pointer is None else pointer.canary,
        "weight": 0 if pointer is None else pointer.weight,
        "items": 0 if view is None else view.info.n_items,
        "ready": gateway.replicas.healthy,
        "breaker": "closed" if gateway.replicas.is_open else "open",
        "in_triton": gateway.recommender.places.inside,
        "waiting": gateway.recommender.places.waiting,
        "wired": gateway.wiring.operator.wired(),
        "online": gateway.metrics.online.table(),
    }


@page.post("/v1/demo/compare", include_in_schema=False)
async def compare(request: Request) -> Response:
    """What stable and canary would answer the same user."""
    gateway = gateway_of(request)
    admit(request, gateway, "recommend")
    asked = validated(RecommendationRequest, await read_json(request, gateway.settings.max_body_bytes, 5.0))
    pointer = gateway.pointer.current()
    live = gateway.views.live()
    releases = {"stable": live.info.release_id if live else None, "canary": None}
    if pointer is not None:
        releases = {"stable": pointer.stable, "canary": pointer.canary}
    slates: dict[str, Any] = {}
    for side, release in releases.items():
        if release is None:
            slates[side] = None
            continue
        model = ENSEMBLE.name if pointer is None else model_of(release)
        try:
            items = await gateway.recommender.compare(asked, release, model)
            slates[side] = {"release": release, "items": [item.model_dump() for item in items]}
        except (TritonFault, RequestError):
            slates[side] = {"release": release, "items": None}
    return JSONResponse(slates)


@admin.get("/status", summary="Pointer and health")
async def status(request: Request) -> Response:
    """Where the pointer stands, what the probe found, and what the pipeline adds."""
    gateway = gateway_of(request)
    admit(request, gateway, "operator")
    pointer = gateway.pointer.current()
    more = {} if gateway.wiring.operator.status is None else await _called(gateway.wiring.operator.status)
    own = {
        "pointer": None if pointer is None else pointer.model_dump(mode="json"),
        "healthy": gateway.replicas.healthy,
        "breaker": "closed" if gateway.replicas.is_open else "open",
        "online": gateway.metrics.online.table(),
    }
    return JSONResponse({**more, **own})


@admin.post("/retrain", summary="Retrain now", status_code=202)
async def retrain(request: Request) -> Response:
    """Starts a retraining; the gate decides what becomes of it."""
    return await _verb(request, "retrain", 202)


@admin.get("/progress", summary="The newest retraining")
async def progress(request: Request) -> Response:
    """Stage and gates of the newest run."""
    return await _verb(request, "progress", 200)


@admin.post("/rollback", summary="Back to the release before")
async def rollback(request: Request) -> Response:
    """Flips the pointer back; works with trainer and store down."""
    return await _verb(request, "rollback", 200)


async def _verb(request: Request, name: str, code: int) -> Response:
    gateway = gateway_of(request)
    admit(request, gateway, "operator")
    verb: Status | None = getattr(gateway.wiring.operator, name)
    if verb is None:
        raise Problem(501, f"{name} is not wired into this gateway")
    return JSONResponse(await _called(verb), code)


async def _called(verb: Status) -> dict[str, Any]:
    """An expected failure is told to the operator, who may know; anything else is a bug."""
    try:
        return await asyncio.to_thread(verb)
    except ConchError as error:
        raise Problem(409, error.what, where=error.where, expected=error.expected, found=error.found) from None
