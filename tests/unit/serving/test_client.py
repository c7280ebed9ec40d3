from __future__ import annotations

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from core.errors import ConchError, RequestError, ServerError
from core.sections import ServingSettings
from core.tensors import ENSEMBLE
from serving.client import ConchClient
from serving.transport import explain, outputs_of


class EmptyResult:
    """What tritonclient hands over when the server's environment has numpy 2: right names, 0 bytes."""

    def as_numpy(self, name: str) -> np.ndarray:
        return np.zeros((0,), np.float32)


def test_empty_tensors_are_an_error_that_names_numpy() -> None:
    with pytest.raises(ServerError, match="empty tensors") as error:
        outputs_of(EmptyResult())
    assert "numpy < 2" in str(error.value.next_step)
    assert all(spec.name in str(error.value.where) for spec in ENSEMBLE.outputs)


@pytest.mark.parametrize(
    ("error", "kind", "message", "next_step"),
    [
        (InferenceServerException("k is wrong", "StatusCode.INVALID_ARGUMENT"), RequestError, "refused", None),
        (InferenceServerException("no k", "400"), RequestError, "refused", None),
        (InferenceServerException("refused", "StatusCode.UNAVAILABLE"), ServerError, "no server", "make serve"),
        (ConnectionRefusedError("refused"), ServerError, "no server", "make serve"),
        (InferenceServerException("late", "StatusCode.DEADLINE_EXCEEDED"), ServerError, "no answer in time", None),
        (TimeoutError("late"), ServerError, "no answer in time", None),
        (InferenceServerException("unknown model", "StatusCode.NOT_FOUND"), ServerError, "does not serve", "conch"),
        (InferenceServerException("boom", "StatusCode.INTERNAL"), ServerError, "the server failed", None),
    ],
)
def test_each_failure_says_what_it_means(
    error: Exception, kind: type[ConchError], message: str, next_step: str | None
) -> None:
    found = explain(error, "host:1", 5)
    assert isinstance(found, kind)
    assert message in found.what
    assert next_step is None or next_step in str(found.next_step)
    assert str(error.args[0]) in str(found.found)


def test_client_checks_before_it_connects() -> None:
    with ConchClient(ServingSettings(grpc_port=1)) as client, pytest.raises(RequestError):
        client.recommend([""])
