"""Rules about how an ensemble's steps meet. A failed reload takes the ensemble down for everyone."""

from __future__ import annotations

from collections.abc import Iterator

from core.errors import ReleaseError
from core.findings import Finding
from serving.lint.layout import pinned_version, signature
from serving.lint.repository import Repository


def pins(seen: Repository) -> Iterator[Finding]:
    """Steps at ``-1`` mixed two releases in one answer in a third of all requests."""
    for name in seen.ensembles:
        path = seen.config_path(name)
        try:
            version = pinned_version(seen.configs[name], path)
        except ReleaseError as error:
            yield Finding("pinned-steps", str(path), error.what, error.expected or "", error.found or "")
            continue
        for step in seen.configs[name].ensemble_scheduling.step:
            leaf = seen.configs.get(step.model_name)
            if leaf is not None and version not in leaf.version_policy.specific.versions:
                what = f"ensemble pins {step.model_name} to a version that it does not serve"
                served = ", ".join(map(str, leaf.version_policy.specific.versions))
                yield Finding("pinned-version", str(path), what, served, str(version))
        if list(seen.configs[name].version_policy.specific.versions) not in ([version], []):
            found = str(list(seen.configs[name].version_policy.specific.versions))
            yield Finding("pinned-version", str(path), "ensemble serves another version than its steps", f"[{version}]",
                          found)  # fmt: skip


def batch_limits(seen: Repository) -> Iterator[Finding]:
    """A batch that an ensemble takes and a step does not is an error of every such request."""
    for name in seen.ensembles:
        ensemble = seen.configs[name]
        for step in ensemble.ensemble_scheduling.step:
            leaf = seen.configs.get(step.model_name)
            if leaf is not None and ensemble.max_batch_size > leaf.max_batch_size:
                what = f"ensemble takes larger batches than {step.model_name}"
                limit = f"at most {leaf.max_batch_size}"
                yield Finding("ensemble-batch", str(seen.config_path(name)), what, limit, str(ensemble.max_batch_size))


def tensor_graph(seen: Repository) -> Iterator[Finding]:
    """Every input is made by one step before, with its type and dims, and everything made is read."""
    for name in seen.ensembles:
        path, ensemble = str(seen.config_path(name)), seen.configs[name]
        scheduled = ensemble.ensemble_scheduling.step
        made = dict(signature(ensemble).inputs)
        for step in scheduled:
            leaf = seen.configs.get(step.model_name)
            outputs = signature(leaf).outputs if leaf is not None else {}
            for output, tensor in step.output_map.items():
                if output not in outputs:
                    yield Finding("tensor-graph", path, f"step {step.model_name} has no output {output}")
                elif tensor in made:
                    yield Finding("tensor-graph", path, f"tensor {tensor} is made twice")
                else:
                    made[tensor] = outputs[output]
        for step in scheduled:
            leaf = seen.configs.get(step.model_name)
            if leaf is None:
                continue
            optional = {tensor.name for tensor in leaf.input if tensor.optional}
            for given, kind in signature(leaf).inputs.items():
                found = made.get(step.input_map.get(given, ""))
                if found != kind and not (given in optional and given not in step.input_map):
                    what = f"wrong tensor for input {given} of {step.model_name}"
                    yield Finding("tensor-graph", path, what, str(kind), str(found))
            for given in set(step.input_map) - set(signature(leaf).inputs):
                yield Finding("tensor-graph", path, f"step {step.model_name} has no input {given}")
        for output, kind in signature(ensemble).outputs.items():
            if made.get(output) != kind:
                yield Finding("tensor-graph", path, f"wrong output {output}", str(kind), str(made.get(output)))
        read = {tensor for step in scheduled for tensor in step.input_map.values()} | set(signature(ensemble).outputs)
        if set(made) - read:
            unread = str(sorted(set(made) - read))
            yield Finding("tensor-unread", path, "wrong tensors that nothing reads", "[]", unread)


def loops(seen: Repository) -> Iterator[Finding]:
    """No step waits for itself."""
    for name in seen.ensembles:
        ensemble = seen.configs[name]
        ready = {tensor.name for tensor in ensemble.input}
        waiting = list(ensemble.ensemble_scheduling.step)
        made = ready | {tensor for step in waiting for tensor in step.output_map.values()}
        while waiting:
            able = [step for step in waiting if set(step.input_map.values()) & made <= ready]
            if not able:
                names = ", ".join(step.model_name for step in waiting)
                yield Finding("ensemble-loop", str(seen.config_path(name)), "steps wait for each other", found=names)
                break
            waiting = [step for step in waiting if step not in able]
            ready |= {tensor for step in able for tensor in step.output_map.values()}
