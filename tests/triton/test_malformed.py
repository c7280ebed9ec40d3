"""Raw requests that our client would never send: each is answered with an error, by the same server process."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from serving.client import ConchClient
from serving.server import TritonServer

Inputs = dict[str, tuple[np.ndarray, str]]


def text(*rows: list[str | bytes]) -> tuple[np.ndarray, str]:
    return np.array(rows, dtype=object), "BYTES"


def numbers(*rows: list[int], dtype: type = np.int32, wire: str = "INT32") -> tuple[np.ndarray, str]:
    return np.array(rows, dtype=dtype), wire


def strength(*values: float) -> tuple[np.ndarray, str]:
    return np.array([values], dtype=np.float32), "FP32"


GOOD: Inputs = {"user_id": text(["u5"]), "k": numbers([3])}
BAD: dict[str, Inputs] = {
    "k of zero": GOOD | {"k": numbers([0])},
    "negative k": GOOD | {"k": numbers([-3])},
    "k above the limit": GOOD | {"k": numbers([21])},
    "k as int64": GOOD | {"k": numbers([3], dtype=np.int64, wire="INT64")},
    "k as float": GOOD | {"k": numbers([3], dtype=np.float32, wire="FP32")},
    "k as text": GOOD | {"k": text(["3"])},
    "k two wide": GOOD | {"k": numbers([3, 4])},
    "k for two users": GOOD | {"k": numbers([3], [4])},
    "no user": {"k": numbers([3])},
    "no k": {"user_id": text(["u5"])},
    "users as numbers": GOOD | {"user_id": numbers([5])},
    "two users in a row": GOOD | {"user_id": text(["u5", "u6"])},
    "bytes that are no UTF-8": GOOD | {"user_id": text([b"\xff\xfe"])},
    "session items that are no UTF-8": GOOD | {"session_items": text([b"\xff\xfe"])},
    "session for two users": GOOD | {"session_items": text(["a"], ["b"])},
    "session of numbers": GOOD | {"session_items": numbers([1])},
    "an unknown tensor": GOOD | {"surprise": numbers([1])},
    "diversity below zero": GOOD | {"diversity": strength(-0.1)},
    "diversity above one": GOOD | {"diversity": strength(1.5)},
    "diversity that is no number": GOOD | {"diversity": strength(float("nan"))},
    "diversity without end": GOOD | {"diversity": strength(float("inf"))},
    "diversity as a whole number": GOOD | {"diversity": numbers([0])},
    "diversity as text": GOOD | {"diversity": text(["0.5"])},
    "diversity two wide": GOOD | {"diversity": strength(0.1, 0.2)},
    "diversity for two users": GOOD | {"diversity": (np.zeros((2, 1), np.float32), "FP32")},
    "a batch above the limit": {"user_id": text(*[["u5"]] * 17), "k": numbers(*[[3]] * 17)},
}


BAD_SIMILAR: dict[str, tuple[str, Inputs]] = {
    "no items": ("similar_items", {"k": numbers([3])}),
    "no k": ("similar_items", {"items": text(["ítem-1"])}),
    "k of zero": ("similar_items", {"items": text(["ítem-1"]), "k": numbers([0])}),
    "items that are no UTF-8": ("similar_items", {"items": text([b"\xff\xfe"]), "k": numbers([3])}),
    "items as numbers": ("similar_items", {"items": numbers([1]), "k": numbers([3])}),
    "a user where items belong": ("similar_items", {"user_id": text(["u5"]), "k": numbers([3])}),
    "diversity of similar items": ("similar_items", {"items": text(["ítem-1"]), "k": numbers([3])}
                                   | {"diversity": strength(0.5)}),
    "no user": ("similar_users", {"k": numbers([3])}),
    "k above the limit": ("similar_users", GOOD | {"k": numbers([21])}),
    "two users in a row": ("similar_users", GOOD | {"user_id": text(["u5", "u6"])}),
}  # fmt: skip


@pytest.fixture(scope="module")
def raw(server: TritonServer) -> Iterator[triton_grpc.InferenceServerClient]:
    connection = triton_grpc.InferenceServerClient(server.address)
    yield connection
    connection.close()


def infer(raw: triton_grpc.InferenceServerClient, tensors: Inputs, model: str = "recommend") -> triton_grpc.InferResult:
    inputs = []
    for name, (array, wire) in tensors.items():
        inputs.append(triton_grpc.InferInput(name, list(array.shape), wire))
        inputs[-1].set_data_from_numpy(array)
    return raw.infer(model, inputs, client_timeout=20)


def is_alive(pid: int) -> bool:
    os.kill(pid, 0)
    return True


@pytest.mark.parametrize("name", BAD)
def test_malformed_request_is_refused_and_the_server_lives(
    server: TritonServer, client: ConchClient, raw: triton_grpc.InferenceServerClient, name: str
) -> None:
    with pytest.raises(InferenceServerException) as error:
        infer(raw, BAD[name])
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert is_alive(server.pid)
    assert client.recommend(["u5"], k=3)[0].release == "r000001"


@pytest.mark.parametrize("name", BAD_SIMILAR)
def test_malformed_question_for_similar_ones_is_refused_and_the_server_lives(
    server: TritonServer, client: ConchClient, raw: triton_grpc.InferenceServerClient, name: str
) -> None:
    model, tensors = BAD_SIMILAR[name]
    with pytest.raises(InferenceServerException) as error:
        infer(raw, tensors, model)
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert is_alive(server.pid)
    assert client.similar_items(["ítem-1"], k=3)[0].items


def test_error_of_a_step_says_what_was_expected_and_found(raw: triton_grpc.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as error:
        infer(raw, BAD["k above the limit"])
    for part in ("k is out of range", "expected: a number from 1 to 20", "found: 21"):
        assert part in error.value.message()


def test_optional_inputs_may_be_left_out_empty_or_of_no_width(raw: triton_grpc.InferenceServerClient) -> None:
    nothing = (np.zeros((1, 0), dtype=object), "BYTES")
    answers = [
        infer(raw, GOOD | extra).as_numpy("item_ids").tolist()
        for extra in ({}, {"session_items": text([""])}, {"exclude_items": nothing, "session_items": nothing})
    ]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"inputs": 3}', b'{"inputs": [{"name": "k"}]}'])
def test_malformed_json_is_refused(server: TritonServer, client: ConchClient, body: bytes) -> None:
    url = f"http://127.0.0.1:{server.settings.serving.http_port}/v2/models/recommend/infer"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST"), timeout=20)
    assert error.value.code >= 400
    assert client.recommend(["u5"])[0].items


def test_plain_json_over_http_is_answered(server: TritonServer) -> None:
    inputs = [
        {"name": "user_id", "shape": [1, 1], "datatype": "BYTES", "data": ["u5"]},
        {"name": "k", "shape": [1, 1], "datatype": "INT32", "data": [3]},
    ]
    url = f"http://127.0.0.1:{server.settings.serving.http_port}/v2/models/recommend/infer"
    request = urllib.request.Request(url, data=json.dumps({"inputs": inputs}).encode(), method="POST")
    outputs = {o["name"]: o for o in json.load(urllib.request.urlopen(request, timeout=20))["outputs"]}
    assert outputs["item_ids"]["shape"] == [1, 3]
    assert outputs["release"]["data"] == ["r000001"]
