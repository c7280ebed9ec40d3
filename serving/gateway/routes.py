"""The HTTP API, version 1: recommendations, events, a user's deletion, health, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.gateway.access import admit
from serving.gateway.body import read_json, validated
from serving.gateway.parts import Gateway
from serving.gateway.problems import Problem
from serving.gateway.wire import (
    LONGEST_ID,
    EventsAnswer,
    EventsRequest,
    Id,
    RecommendationAnswer,
    RecommendationRequest,
)

READY_SECONDS = 0.3
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
router = APIRouter()
T = TypeVar("T")
_ID: TypeAdapter[str] = TypeAdapter(Id)


@router.post("/v1/recommendations", tags=["recommend"], summary="Items for one user")
async def recommendations(request: Request) -> Response:
    """The slate for a user, with reasons, release and a token for events about it.

    `degraded: true` marks a list by popularity, given where the models do not answer in time.
    """
    gateway = gateway_of(request)
    admit(request, gateway, "recommend")
    values = await read_json(request, gateway.settings.max_body_bytes, gateway.settings.body_seconds)
    with gateway.at_work():
        asked = validated(RecommendationRequest, values)
        return model_response(await unless_gone(request, gateway.recommender.answer(asked)))


@router.post("/v1/events", tags=["events"], summary="What users did")
async def events(request: Request) -> Response:
    """Stores a batch; the answer comes after the commit. Send it again after any error: equal events are stored once.

    An event that cannot be used goes into quarantine, with its reason, and does not hold up the others.
    """
    gateway = gateway_of(request)
    admit(request, gateway, "events")
    values = await read_json(request, gateway.settings.max_body_bytes, gateway.settings.body_seconds)
    with gateway.at_work():
        asked = validated(EventsRequest, values)
        return model_response(EventsAnswer(acknowledgements=await gateway.events.take(asked.events)))


@router.delete("/v1/users/{user_id}", tags=["events"], summary="Forget a user", status_code=202)
async def delete_user(request: Request, user_id: Annotated[str, Path(min_length=1, max_length=LONGEST_ID)]) -> Response:
    """Durably asks for the deletion of all that is stored about a user. Needs the operator's key."""
    gateway = gateway_of(request)
    admit(request, gateway, "operator")
    try:
        _ID.validate_python(user_id)
    except ValidationError as error:
        raise Problem(422, "not an id", where="user_id", expected=error.errors()[0]["msg"]) from None
    done = await gateway.events.delete_user(user_id)
    return JSONResponse({"status": done.status}, 202)


@router.get("/health/live", tags=["health"], summary="The process lives")
async def live() -> dict[str, str]:
    """Says nothing about Triton."""
    return {"status": "live"}


@router.get("/health/ready", tags=["health"], summary="The models answer")
async def ready(request: Request) -> Response:
    """200 where the release's ensemble is loaded and the last probe, a real inference, was answered; else 503."""
    gateway = gateway_of(request)
    replicas, model = gateway.replicas, gateway.stable_model()
    loaded = model is not None and await replicas.is_ready(model, READY_SECONDS)
    good = loaded and replicas.healthy and not gateway.draining
    fault = None if good else ("draining" if gateway.draining else replicas.last_fault or "not loaded")
    body = {"status": "ready" if good else "not ready", "model": model, "fault": fault}
    return JSONResponse(body, 200 if good else 503)


@router.get("/metrics", tags=["health"], summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """Of the gateway. Do not route it to users."""
    gateway = gateway_of(request)
    gateway.metrics.inside.set(gateway.recommender.places.inside)
    gateway.metrics.waiting.set(gateway.recommender.places.waiting)
    return Response(gateway.metrics.page(), media_type=METRICS_TYPE)


def gateway_of(request: Request) -> Gateway:
    """The gateway that this app runs."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def model_response(model: RecommendationAnswer | EventsAnswer) -> Response:
    """A model as JSON."""
    return Response(model.model_dump_json(), media_type="application/json")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Runs ``work``; where the client goes away before its end, the work is cancelled: nobody waits for it.

    Raises:
        Problem: 499, the client has gone (nobody reads this; it is counted).
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Problem(499, "the client went away")
        return task.result()
    finally:
        for waiting in (task, gone):
            waiting.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
