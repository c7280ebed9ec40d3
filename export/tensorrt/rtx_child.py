"""Compiles one ONNX file with TensorRT for RTX and says what happened, as one line of JSON.

A program of its own, run once per graph by ``export.tensorrt.gate``: a crash in the native builder is then one
graph's verdict and not the end of the run. It imports nothing of Conch.

    python -m export.tensorrt.rtx_child FILE SM PROFILE-JSON
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

MARK = "@@"
"""Before the line of JSON: native code writes to stdout as well."""


def compile_graph(path: str, sm: str, profile: list[dict[str, Any]]) -> dict[str, Any]:
    """Parses and compiles ``path`` ahead of time for one compute capability, such as ``SM89``."""
    import tensorrt_rtx_bindings as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if str(severity).rsplit(".", 1)[-1] in ("ERROR", "INTERNAL_ERROR"):
                self.errors.append(message)

    log = Log()
    told: dict[str, Any] = {"version": trt.__version__, "stage": "start", "errors": log.errors}
    builder = trt.Builder(log)
    if not builder:
        return told
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    told["stage"] = "parse"
    if not parser.parse_from_file(path):
        faults = (parser.get_error(at) for at in range(parser.num_errors))
        told["parser"] = [f"{fault.node_operator()} ({fault.node_name()}): {fault.desc()}" for fault in faults]
        return told
    told["layers"] = network.num_layers
    told["inputs"] = {network.get_input(at).name: str(network.get_input(at).dtype) for at in range(network.num_inputs)}
    told["stage"] = "build"
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, sm), 0)
    shapes = builder.create_optimization_profile()
    for one in profile:
        if one["name"] in told["inputs"]:
            shapes.set_shape(one["name"], one["low"], one["typical"], one["high"])
    if profile:
        config.add_optimization_profile(shapes)
    started = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    told["build_seconds"] = round(time.perf_counter() - started, 3)
    if engine is not None:
        told |= {"stage": "done", "engine_bytes": len(bytes(engine))}
    return told


if __name__ == "__main__":
    sys.stdout.write(f"\n{MARK}{json.dumps(compile_graph(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))}\n")
