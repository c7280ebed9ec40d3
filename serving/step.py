"""What every python step in Triton does around its own computation: unpack, compute, pack, answer errors.

Inside Triton's stub process only: ``triton_python_backend_utils`` exists nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from core.errors import ConchError, RequestError
from core.tensors import StepSpec
from serving.sums import check_sums

Tensors = dict[str, np.ndarray]


def version_folder(args: dict[str, str]) -> Path:
    """The folder of the version being loaded, from what Triton passes to ``initialize``; its checksums are checked."""
    folder = Path(args["model_repository"]) / args["model_version"]
    check_sums(folder)
    return folder


def answer_each(spec: StepSpec, requests: Sequence[Any], compute: Callable[[Tensors], Tensors]) -> list[Any]:
    """One response per request; what is wrong with one request fails only that one.

    Args:
        spec: The step.
        requests: What Triton batched together.
        compute: Input tensors by name, optional ones only where the request has them, to output tensors by name.
    """
    return [_answer(spec, request, compute) for request in requests]


def decode(strings: np.ndarray) -> list[list[str]]:
    """A string tensor ``(B, n)`` of bytes as ids, "" included.

    Raises:
        RequestError: Bytes that are not UTF-8.
    """
    try:
        return [[item.decode() for item in row] for row in strings.tolist()]
    except UnicodeDecodeError as error:
        raise RequestError("an id is not UTF-8 text", expected="UTF-8", found=repr(error.object[:40])) from None


def encode(strings: np.ndarray) -> np.ndarray:
    """An object array of str as one of bytes, which Triton sends without encoding it again and again."""
    return np.array([text.encode() for text in strings], dtype=object)


def _answer(spec: StepSpec, request: Any, compute: Callable[[Tensors], Tensors]) -> Any:
    try:
        found = {t.name: pb_utils.get_input_tensor_by_name(request, t.name) for t in spec.inputs}
        outputs = compute({name: tensor.as_numpy() for name, tensor in found.items() if tensor is not None})
        return pb_utils.InferenceResponse([pb_utils.Tensor(t.name, outputs[t.name]) for t in spec.outputs])
    except RequestError as error:
        return _failure(str(error), pb_utils.TritonError.INVALID_ARG)
    except ConchError as error:
        return _failure(str(error), pb_utils.TritonError.INTERNAL)
    except Exception as error:  # an escaping one would fail every request of the batch
        pb_utils.Logger.log_error(f"{spec.name}, request {request.request_id()}: {error!r}")
        return _failure(f"{spec.name} failed: {type(error).__name__}", pb_utils.TritonError.INTERNAL)


def _failure(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
