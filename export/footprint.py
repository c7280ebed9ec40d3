"""What an ONNX file costs and is made of: bytes, operators, tensors by dtype, and memory once it is loaded.

python -m export.footprint FILE    prints the bytes of memory that a session over FILE adds to a process
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from core.errors import ExportError

STATM = Path("/proc/self/statm")
PAGE_BYTES = 4096
LOAD_SECONDS = 300


@dataclass(frozen=True)
class Footprint:
    """One graph file.

    Attributes:
        file_bytes: On disk.
        loaded_bytes: Resident memory that a session of ONNX Runtime adds to a fresh process, before the first request;
            None where the system does not tell.
        operators: Nodes by operator.
        tensors: Bytes of initializers by dtype.
    """

    file_bytes: int
    loaded_bytes: int | None
    operators: Mapping[str, int]
    tensors: Mapping[str, int]


def footprint(path: Path) -> Footprint:
    """Reads the file, and loads it once in a process of its own.

    Raises:
        ExportError: The file does not load.
    """
    graph = onnx.load(path).graph
    tensors: Counter[str] = Counter()
    for tensor in graph.initializer:
        tensors[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += len(tensor.raw_data)
    operators = Counter(node.op_type for node in graph.node)
    return Footprint(
        path.stat().st_size, loaded_bytes(path), dict(operators.most_common()), dict(tensors.most_common())
    )


def loaded_bytes(path: Path) -> int | None:
    """See :class:`Footprint`. Raises ExportError where the file does not load."""
    if not STATM.exists():
        return None
    done = subprocess.run(
        [sys.executable, "-m", "export.footprint", str(path)], capture_output=True, text=True, timeout=LOAD_SECONDS
    )
    if done.returncode:
        raise ExportError("ONNX Runtime refuses the graph", where=str(path), found=done.stderr[-500:])
    return int(done.stdout)


def _resident_bytes() -> int:
    return int(STATM.read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def main(path: Path) -> None:
    """Loads a file and prints what that took; only ONNX Runtime is imported, so that nothing else grows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    before = _resident_bytes()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    sys.stdout.write(f"{_resident_bytes() - before}\n")
    del session


if __name__ == "__main__":
    main(Path(sys.argv[1]))
