"""What all clients share: requests as wire tensors, answers as arrays, and what errors mean."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from tritonclient.utils import InferenceServerException

from core.errors import ConchError, RequestError, ServerError
from core.sections import ServingSettings
from core.tensors import ENSEMBLE, SIMILAR_ITEMS, SIMILAR_USERS, StepSpec
from serving.messages import Request
from serving.similar import ItemsRequest

DEFAULT_DEADLINE_SECONDS = 5.0
WIRE = {tensor.name: tensor.dtype.wire for spec in (ENSEMBLE, SIMILAR_ITEMS, SIMILAR_USERS) for tensor in spec.inputs}
Part = TypeVar("Part", Request, ItemsRequest)


def explain(error: Exception, address: str, deadline_seconds: float, model: str = ENSEMBLE.name) -> ConchError:
    """What an error of the transport or of Triton means, and what to do about it."""
    status = error.status() or "" if isinstance(error, InferenceServerException) else ""
    message = (error.message() if isinstance(error, InferenceServerException) else str(error)) or repr(error)
    code = status.rpartition(".")[2]
    if code in ("INVALID_ARGUMENT", "400"):
        return RequestError("the server refused the request", where=model, found=message)
    if "queue size" in message or ("timeout" in message.lower() and "queue" in message.lower()):
        return ServerError("the server is too busy", where=address, found=message, next_step="try again later")
    if code in ("DEADLINE_EXCEEDED", "499") or isinstance(error, TimeoutError):
        return ServerError(
            "no answer in time", where=address, expected=f"an answer within {deadline_seconds:g} seconds", found=message
        )
    if code in ("UNAVAILABLE", "503") or isinstance(error, OSError):
        return ServerError("no server answers", where=address, found=message, next_step="make serve")
    if code in ("NOT_FOUND", "404") or "unknown model" in message:
        served = "conch activate" if model == ENSEMBLE.name else f"make a release with {model.replace('_', '.')} = true"
        return ServerError(f"the server does not serve {model}", where=address, found=message, next_step=served)
    return ServerError("the server failed", where=address, found=f"{code} {message}".strip())


def target(server: str | ServingSettings, protocol: str, deadline_seconds: float | None) -> tuple[str, float]:
    """Address and deadline of a server."""
    if isinstance(server, str):
        return server, deadline_seconds or DEFAULT_DEADLINE_SECONDS
    port = server.http_port if protocol == "http" else server.grpc_port
    return f"{server.host}:{port}", deadline_seconds or server.deadline_seconds


def parts(request: Part, size: int) -> list[Part]:
    """The same questions in requests of ``size`` at most, in order."""
    return [request.take(range(at, min(at + size, len(request)))) for at in range(0, len(request), size)]


def inputs_of(part: Request | ItemsRequest, module: Any) -> list[Any]:
    """Input tensors of a request in the types of a tritonclient module."""
    inputs = []
    for name, array in part.tensors().items():
        tensor = module.InferInput(name, list(array.shape), WIRE[name])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def outputs_of(result: Any, spec: StepSpec = ENSEMBLE) -> dict[str, np.ndarray]:
    """Output tensors by name. Raises ServerError where one is empty."""
    outputs = {tensor.name: result.as_numpy(tensor.name) for tensor in spec.outputs}
    empty = [name for name, array in outputs.items() if array is None or array.size == 0]
    if empty:
        raise ServerError(
            "the server returned empty tensors",
            where=", ".join(empty),
            next_step="check that its Python environment has numpy < 2",
        )
    return outputs
