"""ONNX → plan with classic TensorRT 10 or 11, on the GPU that will run it. Written from NVIDIA's documentation and not
run yet: no GPU was at hand. ``tests/gpu`` holds what has to pass where there is one.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import time
from pathlib import Path
from typing import Any

from core.artifacts import sha256_of
from core.errors import ExportError
from core.sections import TensorrtSettings
from export.tensorrt.plan import Machine, PlanFacts, check_version
from export.tensorrt.profiles import InputProfile, as_facts

MEGABYTE = 1 << 20
WHERE = (
    "on a machine with an NVIDIA GPU, best inside the Triton image that will serve: "
    "pip install -e '.[tensorrt]', copy paths.var there, then `conch export --target tensorrt`; "
    "without one, `conch export` serves ONNX and `conch check-tensorrt` looks at the graphs"
)


def this_machine() -> Machine:
    """The GPU and the TensorRT of this machine.

    CUDA is asked first: without a driver TensorRT hands out objects that crash when used.

    Raises:
        ExportError: No driver, no GPU, no TensorRT, or one that is blocked; it says what to run where.
    """
    missing = missing_parts()
    if missing:
        raise ExportError(
            "this machine cannot build TensorRT plans",
            expected="an NVIDIA GPU with its driver, and the extra tensorrt",
            found="; ".join(missing),
            next_step=WHERE,
        )
    import tensorrt
    import torch

    check_version(tensorrt.__version__)
    if not torch.cuda.is_available():
        raise ExportError("torch is a build without CUDA", found=torch.__version__, next_step=WHERE)
    major, minor = torch.cuda.get_device_capability(0)
    return Machine(gpu=torch.cuda.get_device_name(0), compute_capability=(major, minor), tensorrt=tensorrt.__version__)


def missing_parts() -> list[str]:
    """What keeps this machine from building plans; empty where nothing does."""
    missing = []
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
            missing.append("no NVIDIA GPU")
    except OSError:
        missing.append("no NVIDIA driver (libcuda.so.1)")
    if importlib.util.find_spec("tensorrt") is None:
        missing.append("no package tensorrt")
    return missing


def build_plan(
    onnx: Path,
    plan: Path,
    step: str,
    profile: tuple[InputProfile, ...],
    settings: TensorrtSettings,
    here: Machine,
    caches: Path,
) -> PlanFacts:
    """Builds one plan and writes it with its ``plan.json`` facts beside it.

    Args:
        onnx: The graph; its own types decide the precision.
        plan: File to write.
        step: Name of the served step.
        profile: Shapes of its inputs.
        settings: The section ``tensorrt``.
        here: From :func:`this_machine`.
        caches: Folder of timing caches, one per GPU and TensorRT version.

    Raises:
        ExportError: TensorRT refuses the graph, with its words.
    """
    import tensorrt as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):
        faults = [parser.get_error(at).desc() for at in range(parser.num_errors)]
        raise ExportError("TensorRT refuses the graph", where=str(onnx), found="; ".join(faults or log.errors)[:2000])
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_megabytes * MEGABYTE)
    if settings.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware != "same":
        level = getattr(trt.HardwareCompatibilityLevel, settings.hardware.upper())
        config.hardware_compatibility_level = level
    shapes = builder.create_optimization_profile()
    known = {network.get_input(at).name for at in range(network.num_inputs)}
    for one in profile:
        if one.name in known:
            shapes.set_shape(one.name, one.low, one.typical, one.high)
    config.add_optimization_profile(shapes)
    cache_file = caches / f"{here.key}.timing"
    if settings.timing_cache:
        content = cache_file.read_bytes() if cache_file.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(content), ignore_mismatch=False)
    started = time.perf_counter()
    built = builder.build_serialized_network(network, config)
    seconds = round(time.perf_counter() - started, 3)
    if built is None:
        raise ExportError("TensorRT builds no plan", where=str(onnx), found="; ".join(log.errors)[:2000])
    plan.write_bytes(bytes(built))
    if settings.timing_cache:
        _keep(cache_file, bytes(config.get_timing_cache().serialize()))
    return PlanFacts(
        step=step,
        gpu=here.gpu,
        compute_capability=here.compute_capability,
        tensorrt=here.tensorrt,
        hardware=settings.hardware,
        version_compatible=settings.version_compatible,
        refit=settings.refit,
        precision=settings.precision,
        onnx_sha256=sha256_of(onnx),
        plan_sha256=sha256_of(plan),
        profiles=as_facts(profile),
        build_seconds=seconds,
    )


def _network_flags(trt: Any) -> int:
    """Strongly typed on both majors: TensorRT 11 has no other kind and may lack the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = path.with_suffix(f".{os.getpid()}.tmp")
    ready.write_bytes(content)
    os.replace(ready, path)
