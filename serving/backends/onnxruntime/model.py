"""Triton's onnxruntime backend in Python, for servers that come without the C++ one.

Serves every model whose config.pbtxt says ``backend: "onnxruntime"``. The config is the production one: in NVIDIA's
container the C++ backend takes this file's place and nothing else changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

from serving.sums import check_sums


class TritonPythonModel:
    """One session per instance; the requests of one batch run as one."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._name = args["model_name"]
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        folder = Path(args["model_repository"]) / args["model_version"]
        check_sums(folder)
        graph = folder / config["default_model_filename"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads(config, "intra_op_thread_count")
        options.inter_op_num_threads = _threads(config, "inter_op_thread_count")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are shared with others
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=_providers(args))

    def execute(self, requests: list[Any]) -> list[Any]:
        feeds = [self._feed(request) for request in requests]
        if len(feeds) == 1:
            return [self._alone(feeds[0])]
        try:
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
            outputs = self._session.run(self._outputs, joined)
        except Exception:  # one bad request must not fail its neighbours
            return [self._alone(feed) for feed in feeds]
        ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])
        starts = [0, *ends[:-1]]
        return [
            self._response([output[start:stop] for output in outputs]) for start, stop in zip(starts, ends, strict=True)
        ]

    def _feed(self, request: Any) -> dict[str, np.ndarray]:
        # CPU tensors come as views of shared memory; ONNX Runtime reads them in place.
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}

    def _alone(self, feed: dict[str, np.ndarray]) -> Any:
        try:
            return self._response(self._session.run(self._outputs, feed))
        except Exception as error:  # onnxruntime raises its own hierarchy per failure
            message = f"{self._name}: {str(error)[:500]}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))

    def _response(self, outputs: list[np.ndarray]) -> Any:
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, output) for name, output in zip(self._outputs, outputs, strict=True)]
        )


def _threads(config: dict[str, Any], key: str) -> int:
    return int(config.get("parameters", {}).get(key, {}).get("string_value", "1"))


def _providers(args: dict[str, str]) -> list[Any]:
    if args["model_instance_kind"] == "GPU":
        return [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])})]
    return ["CPUExecutionProvider"]
