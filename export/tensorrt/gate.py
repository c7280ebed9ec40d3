"""The gate that needs no GPU: every exported graph is parsed and compiled by TensorRT for RTX on the CPU.

What a pass proves: NVIDIA's ONNX parser accepted every node, and TensorRT for RTX 1.7.1 compiled the graph ahead of
time for one consumer GPU architecture. What it does not: that classic TensorRT builds a plan, that either computes the
right values (NaN weights pass), or how fast it is. Triton cannot load what is compiled here; nothing is kept.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from core.errors import ExportError
from core.sections.base import LONGEST_SORT
from export.tensorrt.profiles import InputProfile, as_facts
from export.tensorrt.rtx_child import MARK

Verdict = Literal["accepted", "refused", "could not run"]

PACKAGE = "tensorrt_rtx_bindings"
INSTALL = "pip install -c constraints.txt -e '.[rtx]', or `make setup-rtx`; NVIDIA's licence applies"
ARCHITECTURE = "SM89"
"""RTX 40. The builder knows SM75, 80, 86, 89, 120 and 121; an H100 (SM90) is not among them."""
PROOF = "parsed by NVIDIA's ONNX parser and compiled ahead of time by TensorRT for RTX, on the CPU; not run"
REFUSED_TOPK = LONGEST_SORT + 256


@dataclass(frozen=True)
class GraphVerdict:
    """What TensorRT for RTX says about one graph.

    Attributes:
        graph: File name.
        verdict: accepted; refused, with NVIDIA's words; could not run: nothing is known about the graph.
        reason: Empty where accepted.
        stage: How far it came: start, parse, build, done, crash, timeout.
        layers: Of the network that the parser made.
        engine_bytes: Size of what was compiled.
        seconds: Wall time of its process.
        version: Of TensorRT for RTX.
    """

    graph: str
    verdict: Verdict
    reason: str = ""
    stage: str = ""
    layers: int = 0
    engine_bytes: int = 0
    seconds: float = 0.0
    version: str = ""

    def __str__(self) -> str:
        size = f", {self.layers} layers, {self.engine_bytes / 1e6:.1f} MB" if self.verdict == "accepted" else ""
        return f"{self.graph}: {self.verdict}{size}, {self.seconds:.1f} s" + (f": {self.reason}" if self.reason else "")


def is_installed() -> bool:
    """Whether the extra ``rtx`` is in this environment."""
    return importlib.util.find_spec(PACKAGE) is not None


def check_graph(path: Path, profile: Sequence[InputProfile] = (), *, timeout_seconds: float = 300) -> GraphVerdict:
    """Compiles one graph in a process of its own.

    Args:
        path: ONNX file.
        profile: Shapes of the inputs with dynamic axes.
        timeout_seconds: A longer build counts as one that could not run.
    """
    if not is_installed():
        return GraphVerdict(path.name, "could not run", f"the extra rtx is not installed: {INSTALL}", "start")
    told, seconds = _run_child(path, list(as_facts(tuple(profile))), timeout_seconds)
    stage, errors = told["stage"], told.get("parser") or told["errors"]
    reason = " | ".join(errors)[:1000]
    # A build that stopped for want of a driver says nothing about the graph.
    no_driver = stage == "build" and bool(errors) and all("cuda" in line.lower() for line in errors)
    verdict: Verdict = "accepted" if stage == "done" else "refused"
    if stage in ("start", "crash", "timeout") or no_driver:
        verdict = "could not run"
    return GraphVerdict(
        path.name,
        verdict,
        "" if stage == "done" else reason or f"stopped at {stage}",
        stage,
        told.get("layers", 0),
        told.get("engine_bytes", 0),
        round(seconds, 2),
        told.get("version", ""),
    )


def negative_control() -> GraphVerdict:
    """A graph that TensorRT must refuse: TopK of more than 3,840. A gate that takes it proves nothing."""
    graph = helper.make_graph(
        [helper.make_node("TopK", ["scores", "k"], ["best", "rows"], axis=1)],
        "control",
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2 * REFUSED_TOPK])],
        [
            helper.make_tensor_value_info("best", TensorProto.FLOAT, [1, REFUSED_TOPK]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, [1, REFUSED_TOPK]),
        ],
        [numpy_helper.from_array(np.array([REFUSED_TOPK], np.int64), "k")],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"negative-control-topk-{REFUSED_TOPK}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
        return check_graph(path)


def check_control() -> GraphVerdict:
    """The negative control's verdict.

    Raises:
        ExportError: It was accepted, so this TensorRT says nothing.
    """
    control = negative_control()
    if control.verdict == "accepted":
        raise ExportError(
            "the gate accepts what TensorRT must refuse", expected="TopK of 4,096 refused", found=str(control)
        )
    return control


def as_report(verdicts: Sequence[GraphVerdict], control: GraphVerdict) -> dict[str, Any]:
    """Plain values for JSON, with what a pass proves."""
    return {
        "schema_version": 1,
        "proves": PROOF,
        "does_not_prove": "classic TensorRT, values, speed",
        "architecture": ARCHITECTURE,
        "graphs": [asdict(verdict) for verdict in verdicts],
        "negative_control": asdict(control),
    }


def _run_child(path: Path, profile: list[dict[str, Any]], timeout_seconds: float) -> tuple[dict[str, Any], float]:
    command = [
        sys.executable,
        "-m",
        "export.tensorrt.rtx_child",
        str(path.resolve()),
        ARCHITECTURE,
        json.dumps(profile),
    ]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, cwd=_root())
    except subprocess.TimeoutExpired:
        return {"stage": "timeout", "errors": [f"over {timeout_seconds:.0f} s"]}, time.perf_counter() - started
    seconds = time.perf_counter() - started
    line = next((line for line in done.stdout.splitlines() if line.startswith(MARK)), None)
    if line is None:
        return {"stage": "crash", "errors": [f"exit {done.returncode}: {done.stderr.strip()[-500:]}"]}, seconds
    return json.loads(line.removeprefix(MARK)), seconds


def _root() -> Path:
    """Where ``export`` can be imported from."""
    return Path(__file__).resolve().parents[2]
