"""config.pbtxt of every served model, built as protobuf objects from ``core.tensors``.

``python -m export.config`` rewrites the committed files in model_repository/ from the default settings.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from core.ensembles import EXTRAS, Ensemble, leaf_steps, served_ensembles
from core.sections import ServingSettings
from core.settings import ROOT, Settings
from core.tensors import DType, StepSpec, TensorSpec

COMMITTED = ROOT / "model_repository"
DEFAULT_FEATURES = 1
"""F of the committed configs: the column of zeros that stands for a dataset without user attributes."""
WARMUP_HISTORY = 512
"""L of the large warm-up request; the small one has the smallest bucket."""
HEADER = "# Rendered from core/tensors.py by `python -m export.config`; do not edit.\n"
ENGINE_CACHE = "/var/cache/conch-engines"
"""In the container; a volume, so that a restart builds no engine again. Keyed by GPU and TensorRT version inside."""
WORKSPACE_BYTES = 1 << 31
OTHER_AXES = {"S": 1, "X": 16, "Q": 16}
"""Warm-up widths of the dynamic axes that are neither B nor L."""


def render_configs(
    version: int,
    sources: Sequence[str],
    sizes: dict[str, int],
    max_batch: int,
    serving: ServingSettings | None = None,
    extras: Collection[str] = (),
) -> dict[str, str]:
    """Text of config.pbtxt for each leaf and for each ensemble, by model name.

    Args:
        version: The release's version number; leaves serve only it and every ensemble step is pinned to it.
        sources: Recall sources in order.
        sizes: The axes that this release fixes: K, R, F. Others stay dynamic.
        max_batch: Largest batch of every model.
        serving: Instances, threads, queues; the defaults when None.
        extras: Names in ``core.ensembles.EXTRAS``.
    """
    serving = serving or ServingSettings()
    ensembles = served_ensembles(sources, extras)
    configs = [leaf_config(spec, (version,), sizes, max_batch, serving) for spec in leaf_steps(ensembles)]
    configs += [ensemble_config(ensemble, version, sizes, max_batch) for ensemble in ensembles]
    return {config.name: config_text(config) for config in configs}


def leaf_config(
    spec: StepSpec, versions: tuple[int, ...], sizes: dict[str, int], max_batch: int, serving: ServingSettings
) -> pb.ModelConfig:
    """Config of one step of the ensemble."""
    graph = spec.backend == "onnxruntime"
    plan = graph and serving.flavour == "tensorrt_plan"
    config = pb.ModelConfig(
        name=spec.name,
        backend="tensorrt" if plan else spec.backend,
        max_batch_size=max_batch,
        default_model_filename="model.plan" if plan else "model.onnx" if graph else "model.py",
        input=[_input(tensor, sizes, ragged=not graph) for tensor in spec.inputs],
        output=[pb.ModelOutput(name=t.name, data_type=_type(t.dtype), dims=t.dims(sizes)) for t in spec.outputs],
        version_policy=pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=versions)),
        # No queue policy: with one, Triton 2.51 lets requests of another shape wait until the next request arrives.
        dynamic_batching=pb.ModelDynamicBatching(max_queue_delay_microseconds=serving.max_queue_delay_microseconds),
        instance_group=[_instances(graph, serving)],
    )
    if graph and serving.flavour == "tensorrt_provider":
        _add_tensorrt(config)
    if graph and not plan:
        config.parameters["intra_op_thread_count"].string_value = str(serving.graph_threads)
        config.parameters["inter_op_thread_count"].string_value = "1"
    if graph:
        config.model_warmup.extend(
            [
                _warmup(spec, "one_short_history", 1, sizes | {"L": OTHER_AXES["X"]}),
                _warmup(spec, "full_batch_of_long_histories", max_batch, sizes | {"L": WARMUP_HISTORY}),
            ]
        )
    return config


def ensemble_config(ensemble: Ensemble, version: int, sizes: dict[str, int], max_batch: int) -> pb.ModelConfig:
    """Config of an ensemble: every step pinned to ``version``, since unpinned steps mix two releases in one answer."""
    spec = ensemble.spec
    config = pb.ModelConfig(
        name=spec.name,
        platform="ensemble",
        max_batch_size=max_batch,
        input=[_input(tensor, sizes, ragged=False) for tensor in spec.inputs],
        output=[pb.ModelOutput(name=t.name, data_type=_type(t.dtype), dims=t.dims(sizes)) for t in spec.outputs],
        version_policy=pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[version])),
    )
    for leaf, inputs, outputs in ensemble.wires():
        step = config.ensemble_scheduling.step.add(model_name=leaf.name, model_version=version)
        for name, tensor in inputs.items():
            step.input_map[name] = tensor
        for name, tensor in outputs.items():
            step.output_map[name] = tensor
    return config


def config_text(config: pb.ModelConfig) -> str:
    """Protobuf text below a header line. Map entries come sorted, so equal configs give equal bytes."""
    return HEADER + text_format.MessageToString(config)


def default_sizes(settings: Settings) -> dict[str, int]:
    """The axes that the committed configs fix."""
    return {"K": settings.recall.candidates, "R": settings.serving.max_k, "F": DEFAULT_FEATURES}


def committed_configs() -> dict[Path, str]:
    """Path and wanted text of each committed config.pbtxt."""
    settings = Settings()
    texts = render_configs(
        1, settings.recall.sources, default_sizes(settings), settings.export.max_batch, settings.serving, tuple(EXTRAS)
    )
    return {COMMITTED / name / "config.pbtxt": text for name, text in texts.items()}


def _input(tensor: TensorSpec, sizes: dict[str, int], *, ragged: bool) -> pb.ModelInput:
    """Python steps take each request by itself, so requests of different widths may share a batch there."""
    dims = tensor.dims(sizes)
    return pb.ModelInput(
        name=tensor.name,
        data_type=_type(tensor.dtype),
        dims=dims,
        optional=tensor.optional,
        allow_ragged_batch=ragged and -1 in dims,
    )


def _type(dtype: DType) -> int:
    return pb.DataType.Value(dtype.triton)


def _instances(graph: bool, serving: ServingSettings) -> pb.ModelInstanceGroup:
    if graph and serving.device == "cuda":
        return pb.ModelInstanceGroup(count=serving.graph_instances, kind=pb.ModelInstanceGroup.KIND_GPU)
    count = serving.graph_instances if graph else serving.python_instances
    return pb.ModelInstanceGroup(count=count, kind=pb.ModelInstanceGroup.KIND_CPU)


def _add_tensorrt(config: pb.ModelConfig) -> None:
    """TensorRT inside ONNX Runtime. Engines are built at the first load and kept; the warm-up covers both ends.

    No ``precision_mode``: it maps to flags that TensorRT 11 has not. fp16 is a matter of the graph's own types.
    """
    one = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    one.parameters["max_workspace_size_bytes"] = str(WORKSPACE_BYTES)
    one.parameters["trt_engine_cache_enable"] = "true"
    one.parameters["trt_engine_cache_path"] = f"{ENGINE_CACHE}/{config.name}"


def _warmup(spec: StepSpec, name: str, batch: int, sizes: dict[str, int]) -> pb.ModelWarmup:
    """A request of zeros: row 0 is an item of every vocabulary and code 0 is "unknown" in every feature."""
    warmup = pb.ModelWarmup(name=name, batch_size=batch)
    for tensor in spec.inputs:
        entry = warmup.inputs[tensor.name]
        entry.data_type = _type(tensor.dtype)
        entry.dims.extend(tensor.dims(OTHER_AXES | sizes))
        entry.zero_data = True
    return warmup


if __name__ == "__main__":
    for path, text in committed_configs().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
