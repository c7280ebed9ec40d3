"""The gate over an artefact of graphs, and its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.artifacts import Artifact, latest_artifact, write_json
from core.ensembles import leaf_steps, served_ensembles
from core.errors import ExportError
from core.findings import Finding
from core.graph_check import graph_findings
from core.settings import Settings
from core.tensors import StepSpec
from export.tensorrt.gate import PROOF, GraphVerdict, as_report, check_control, check_graph
from export.tensorrt.profiles import step_profile


def graphs_of(artifact: Artifact) -> dict[StepSpec, Path]:
    """The ONNX files of an artefact of graphs, by step."""
    told = artifact.manifest.tensors
    steps = leaf_steps(served_ensembles(told["sources"], told["extras"]))
    return {spec: artifact.file(f"{spec.name}.onnx") for spec in steps if spec.backend != "python"}


def check_graphs(settings: Settings, out: Path | None, say: Callable[[str], None]) -> tuple[GraphVerdict, ...]:
    """Compiles the newest graphs with TensorRT for RTX, each verdict one line.

    Args:
        settings: ``paths.var`` has the graphs, ``tensorrt`` the sizes.
        out: JSON report to write.
        say: Takes one line.

    Raises:
        ArtifactError: Nothing exported yet.
        ExportError: The negative control was accepted.
    """
    artifact = latest_artifact(settings.paths.var, "graphs")
    control = check_control()
    say(f"negative control: {control}")
    verdicts = []
    for spec, path in graphs_of(artifact).items():
        verdict = check_one(spec, path, artifact, settings)
        say(str(verdict))
        verdicts.append(verdict)
    if out is not None:
        write_json(out, as_report(verdicts, control))
    accepted = sum(verdict.verdict == "accepted" for verdict in verdicts)
    say(f"check-tensorrt: {accepted} of {len(verdicts)} graphs {PROOF}")
    return tuple(verdicts)


def check_one(spec: StepSpec, path: Path, artifact: Artifact, settings: Settings) -> GraphVerdict:
    """The verdict on one graph; what ``core.graph_check`` finds for TensorRT counts as refused too."""
    found: list[Finding] = graph_findings(path, spec, "tensorrt")
    if found:
        return GraphVerdict(path.name, "refused", "; ".join(map(str, found))[:1000], "graph check")
    max_batch = artifact.manifest.settings["export"]["max_batch"]
    profile = step_profile(spec, artifact.manifest.tensors["sizes"], settings.tensorrt, max_batch)
    return check_graph(path, profile)


def must_accept(verdicts: tuple[GraphVerdict, ...]) -> None:
    """Raises ExportError where a graph was refused or could not be looked at."""
    bad = [verdict for verdict in verdicts if verdict.verdict != "accepted"]
    if bad:
        raise ExportError(
            "not every graph is ready for TensorRT",
            where=", ".join(verdict.graph for verdict in bad),
            found="; ".join(map(str, bad))[:2000],
        )
