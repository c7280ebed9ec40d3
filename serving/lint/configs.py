"""Rules about one model's config.pbtxt."""

from __future__ import annotations

from collections.abc import Iterator

from tritonclient.grpc import model_config_pb2 as pb

from core.findings import Finding
from core.tensors import StepSpec
from serving.lint.layout import TENSORRT
from serving.lint.repository import Repository
from serving.release import GRAPH_FILE, PLAN_FILE, STEP_FILE

FILES = {"python": STEP_FILE, "onnxruntime": GRAPH_FILE, TENSORRT: PLAN_FILE}
"""Backend to the file that it loads."""
LONGEST_DELAY_MICROSECONDS = 100_000
UNSERVED = ("sequence_batching", "model_repository_agents", "model_operations", "model_transaction_policy")
"""Parts of a config that nothing here uses; each changes how requests are answered."""
PARAMETERS = frozenset({"intra_op_thread_count", "inter_op_thread_count"})


def identity(seen: Repository) -> Iterator[Finding]:
    """Name, backend and file. A backend that the server lacks fails at the first load, not before."""
    specs = seen.specs()
    for name, config in seen.configs.items():
        where = str(seen.config_path(name))
        if config.name != name:
            yield Finding("config-name", where, "wrong name", name, config.name)
        if name in seen.ensembles:
            if config.platform != "ensemble" or config.backend:
                found = config.platform or config.backend
                yield Finding("backend", where, "an ensemble of another platform", "ensemble", found)
            continue
        wanted = _backends(specs[name]) if name in specs else tuple(FILES)
        if config.backend not in wanted or config.platform:
            found = config.backend or f"platform {config.platform}"
            yield Finding("backend", where, "backend that does not serve this step", " or ".join(wanted), found)
        elif config.default_model_filename != FILES[config.backend]:
            found = config.default_model_filename or "none"
            yield Finding("model-file-name", where, "wrong default_model_filename", FILES[config.backend], found)


def versions(seen: Repository) -> Iterator[Finding]:
    """``latest`` serves what a half-copied folder adds; ``specific`` serves what was flipped to."""
    for name, config in seen.configs.items():
        if not config.version_policy.specific.versions:
            wanted = "specific { versions: … }"
            yield Finding("version-policy", str(seen.config_path(name)), "version_policy is not specific", wanted)


def batches(seen: Repository) -> Iterator[Finding]:
    """protobuf text drops ``max_batch_size: 0``, and preferred sizes above the limit end the load."""
    for name, config in seen.configs.items():
        where = str(seen.config_path(name))
        if config.max_batch_size < 1:
            yield Finding("max-batch", where, "max_batch_size is missing", "1 or more", str(config.max_batch_size))
        batching = config.dynamic_batching
        over = [size for size in batching.preferred_batch_size if not 1 <= size <= config.max_batch_size]
        if over:
            limit = f"1 to {config.max_batch_size}"
            yield Finding("preferred-batch", where, "preferred batch out of range", limit, str(over))
        if batching.max_queue_delay_microseconds > LONGEST_DELAY_MICROSECONDS:
            found = str(batching.max_queue_delay_microseconds)
            yield Finding(
                "queue-delay", where, "requests wait too long", f"at most {LONGEST_DELAY_MICROSECONDS}", found
            )
        if batching.HasField("default_queue_policy") or batching.priority_queue_policy or batching.priority_levels:
            what = "queue policy: Triton 2.51 leaves requests of another shape waiting with one"
            yield Finding("queue-policy", where, what, "none")
        if name not in seen.ensembles and not config.HasField("dynamic_batching"):
            yield Finding("dynamic-batching", where, "step without dynamic_batching answers one request at a time")


def tensors(seen: Repository) -> Iterator[Finding]:
    """Names, types, fixed axes and what may be left out, as ``core.tensors`` says."""
    for name, spec in seen.specs().items():
        if name not in seen.configs:
            continue
        config, where = seen.configs[name], str(seen.config_path(name))
        for side, wanted, found in (("input", spec.inputs, config.input), ("output", spec.outputs, config.output)):
            names = [tensor.name for tensor in found]
            must = [tensor.name for tensor in wanted if not tensor.optional]
            known = {tensor.name: tensor for tensor in wanted}
            if len(set(names)) != len(names) or not set(must) <= set(names) <= set(known):
                yield Finding("tensor-names", where, f"wrong {side}s", str(list(known)), str(names))
                continue
            for tensor in found:
                yield from _tensor(where, side, known[tensor.name].dtype.triton, known[tensor.name].dims(), tensor)
        if config.backend in ("onnxruntime", TENSORRT):
            loose = [t.name for t in config.input if t.optional or t.allow_ragged_batch]
            if loose:
                what = "graphs read all inputs, of one width in a batch"
                yield Finding("optional-input", where, what, "no optional or ragged input", str(loose))
        elif name not in seen.ensembles:
            bound = [t.name for t in config.input if t.optional and not _may_lack(spec, t.name)]
            if bound:
                yield Finding("optional-input", where, "input may be left out that the step needs", found=str(bound))


def unserved_parts(seen: Repository) -> Iterator[Finding]:
    """Parts of configs that Triton takes and Conch must not have."""
    for name, config in seen.configs.items():
        where = str(seen.config_path(name))
        if config.response_cache.enable:
            what = "response cache: its keys leave out composing versions, old lists come back after a flip"
            yield Finding("response-cache", where, what, "none")
        for part in UNSERVED:
            if config.HasField(part):
                yield Finding("unserved-part", where, f"{part} is not served", "none")
        stray = set(config.parameters) - PARAMETERS
        if stray:
            yield Finding("parameters", where, "unknown parameters", str(sorted(PARAMETERS)), str(sorted(stray)))


def _backends(spec: StepSpec) -> tuple[str, ...]:
    return ("python",) if spec.backend == "python" else ("onnxruntime", TENSORRT)


def _may_lack(spec: StepSpec, name: str) -> bool:
    return any(tensor.name == name and tensor.optional for tensor in spec.inputs)


def _tensor(where: str, side: str, dtype: str, dims: list[int], tensor: pb.ModelInput) -> Iterator[Finding]:
    found = pb.DataType.Name(tensor.data_type)
    if found != dtype:
        yield Finding("tensor-dtype", where, f"wrong type of {side} {tensor.name}", dtype, found)
    same = len(dims) == len(tensor.dims) and all(a in (-1, b) for a, b in zip(dims, tensor.dims, strict=True))
    if not same:
        yield Finding("tensor-dims", where, f"wrong dims of {side} {tensor.name}", str(dims), str(list(tensor.dims)))
