"""Load on one peer: clients that ask again at once, with ready-made bytes, so that a client costs little."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from core.errors import ServerError
from core.tensors import ENSEMBLE
from serving.messages import make_request
from serving.transport import WIRE

INFER = "/inference.GRPCInferenceService/ModelInfer"
DEADLINE_SECONDS = 30.0
Asker = Callable[[int], float]
"""Sends the request at a place, waits for the answer, gives back seconds."""


@dataclass(frozen=True)
class Cell:
    """One turn of one peer.

    Attributes:
        users_per_second: Answered.
        p50_ms: Of a request, as are the others.
    """

    users_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def triton_body(users: Sequence[str], k: int) -> bytes:
    """A ModelInfer request of ``recommend``."""
    request = service_pb2.ModelInferRequest(model_name=ENSEMBLE.name)
    for name, array in make_request(users, k).tensors().items():
        request.inputs.add(name=name, datatype=WIRE[name], shape=array.shape)
        raw = serialize_byte_tensor(array).item() if WIRE[name] == "BYTES" else array.tobytes()
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString())


def triton_asker(address: str, bodies: Sequence[bytes]) -> Asker:
    """A client with a gRPC connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    call = grpc.insecure_channel(address, options=own).unary_unary(INFER)  # bytes in, bytes out

    def ask(place: int) -> float:
        started = time.perf_counter()
        call(bodies[place % len(bodies)], timeout=DEADLINE_SECONDS)
        return time.perf_counter() - started

    return ask


def web_body(users: Sequence[str], k: int) -> bytes:
    """The same question as JSON."""
    return json.dumps({"users": list(users), "k": k}).encode()


def web_asker(port: int, bodies: Sequence[bytes]) -> Asker:
    """A client with an HTTP connection of its own, kept open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    headers = {"Content-Type": "application/json"}

    def ask(place: int) -> float:
        started = time.perf_counter()
        connection.request("POST", "/recommend", bodies[place % len(bodies)], headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise ServerError("the peer refused the request", where=f"port {port}", found=text[:200].decode())
        return time.perf_counter() - started

    return ask


def measure(askers: Sequence[Asker], batch: int, seconds: float, warm_seconds: float) -> Cell:
    """One closed loop per asker for ``seconds``, after a warm-up that does not count.

    Raises:
        ServerError: A request failed: a turn with failures is no measurement.
    """
    taken: list[list[float]] = [[] for _ in askers]
    problems: list[Exception] = []
    began = time.perf_counter() + warm_seconds
    until = began + seconds

    def loop(number: int, ask: Asker) -> None:
        place = number * 7  # clients ask for different users at a time
        try:
            while time.perf_counter() < until or not taken[number]:  # one slow answer is an answer
                counts = time.perf_counter() >= began
                spent = ask(place)
                place += 1
                if counts:
                    taken[number].append(spent)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=loop, args=one, daemon=True) for one in enumerate(askers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lasted = time.perf_counter() - began  # the last requests of all clients included
    all_taken = np.array([spent for each in taken for spent in each]) * 1_000
    if problems or not len(all_taken):
        raise ServerError("a peer failed under load", found=str(problems[0]) if problems else "no answer in the turn")
    p50, p95, p99 = (round(float(value), 3) for value in np.percentile(all_taken, [50, 95, 99]))
    return Cell(round(len(all_taken) * batch / lasted, 1), p50, p95, p99)
