"""Rules about how a model runs: instances, accelerators, warm-up."""

from __future__ import annotations

from collections.abc import Iterator

from tritonclient.grpc import model_config_pb2 as pb

from core.findings import Finding
from serving.lint.layout import TENSORRT
from serving.lint.repository import Repository

Group = pb.ModelInstanceGroup


def ensemble_extras(seen: Repository) -> Iterator[Finding]:
    """An ensemble runs nothing itself; Triton refuses or ignores these on it."""
    for name in seen.ensembles:
        config = seen.configs[name]
        parts = [part for part in ("optimization", "dynamic_batching") if config.HasField(part)]
        parts += [part for part in ("instance_group", "model_warmup", "parameters") if getattr(config, part)]
        if parts:
            yield Finding("ensemble-parts", str(seen.config_path(name)), "parts that an ensemble may not have", "none",
                          ", ".join(parts))  # fmt: skip


def instances(seen: Repository) -> Iterator[Finding]:
    """Kind and count are written down: Triton's own choice differs between machines."""
    for name, config in seen.leaves.items():
        where = str(seen.config_path(name))
        if not config.instance_group:
            yield Finding("instances", where, "no instance_group", "one, with kind and count")
        for group in config.instance_group:
            if group.count < 1 or group.kind not in (Group.KIND_CPU, Group.KIND_GPU):
                found = f"{Group.Kind.Name(group.kind)}, count {group.count}"
                yield Finding("instances", where, "instances are not spelled out", "KIND_CPU or KIND_GPU, count", found)
            gpu = group.kind == Group.KIND_GPU or bool(group.gpus)
            if gpu and config.backend == "python":
                yield Finding("instance-gpu", where, "python steps run on the CPU", "KIND_CPU", "KIND_GPU")
            if gpu and seen.serving is not None and seen.serving.device != "cuda":
                yield Finding("instance-gpu", where, "GPU instances on a server without GPU", "KIND_CPU", "KIND_GPU")
            if config.backend == TENSORRT and not gpu:
                yield Finding("instance-gpu", where, "a plan runs on a GPU alone", "KIND_GPU", "KIND_CPU")


def accelerators(seen: Repository) -> Iterator[Finding]:
    """TensorRT inside ONNX Runtime: on GPU instances alone, with its precision in the graph."""
    for name, config in seen.leaves.items():
        where = str(seen.config_path(name))
        chosen = config.optimization.execution_accelerators
        if chosen.cpu_execution_accelerator:
            yield Finding("accelerator", where, "accelerators on the CPU are not served", "none")
        for one in chosen.gpu_execution_accelerator:
            if config.backend != "onnxruntime" or any(group.kind != Group.KIND_GPU for group in config.instance_group):
                yield Finding("accelerator", where, f"{one.name} needs onnxruntime on KIND_GPU")
            if one.name != TENSORRT:
                yield Finding("accelerator", where, "unknown accelerator", TENSORRT, one.name)
            if "precision_mode" in one.parameters:
                what = "precision_mode maps to flags that TensorRT 11 has not"
                yield Finding("precision-mode", where, what, "types in the graph", one.parameters["precision_mode"])
            if one.parameters.get("trt_engine_cache_enable") == "true" and not one.parameters.get(
                "trt_engine_cache_path"
            ):
                yield Finding("engine-cache", where, "engine cache without its folder", "trt_engine_cache_path")


def warmups(seen: Repository) -> Iterator[Finding]:
    """Each warm-up names all inputs with their types; a graph warms up at batch 1 and at the largest."""
    for name, config in seen.leaves.items():
        where = str(seen.config_path(name))
        inputs = {tensor.name: tensor for tensor in config.input}
        for warmup in config.model_warmup:
            if set(warmup.inputs) != set(inputs):
                found = str(sorted(warmup.inputs))
                yield Finding("warm-up", where, f"wrong inputs of {warmup.name}", str(sorted(inputs)), found)
                continue
            for key, given in warmup.inputs.items():
                fits = len(given.dims) == len(inputs[key].dims) and all(
                    wanted in (-1, dim) and dim > 0 for wanted, dim in zip(inputs[key].dims, given.dims, strict=True)
                )
                if not fits or given.data_type != inputs[key].data_type:
                    yield Finding("warm-up", where, f"{warmup.name} does not fit input {key}")
            if not 1 <= warmup.batch_size <= config.max_batch_size:
                limit = f"1 to {config.max_batch_size}"
                yield Finding("warm-up", where, f"{warmup.name} has a wrong batch", limit, str(warmup.batch_size))
        if config.backend in ("onnxruntime", TENSORRT):
            sizes = {warmup.batch_size for warmup in config.model_warmup}
            if not {1, config.max_batch_size} <= sizes:
                wanted = f"batch 1 and {config.max_batch_size}"
                yield Finding("warm-up", where, "graph without warm-up at both ends", wanted, str(sorted(sizes)))
