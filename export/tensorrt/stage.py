"""`conch export --target tensorrt`: the newest graphs become plans, an artefact of their own."""

from __future__ import annotations

from pathlib import Path

from core.artifacts import Artifact, create_artifact, latest_artifact, write_json
from core.errors import ExportError
from core.graph_check import check_onnx
from core.progress import SILENT, Progress
from core.settings import Settings
from export.tensorrt.build import build_plan, this_machine
from export.tensorrt.check import graphs_of
from export.tensorrt.plan import Machine, PlanFacts
from export.tensorrt.profiles import step_profile

KIND = "plans"


def export_plans(settings: Settings, progress: Progress = SILENT) -> Artifact:
    """Builds a plan of every graph of the newest export.

    A graph that gets none is served as ONNX where ``tensorrt.fallback``: said aloud, and recorded in the manifest.

    Raises:
        ArtifactError: Nothing exported yet.
        ExportError: No GPU, no TensorRT, or a refused graph without ``tensorrt.fallback``.
    """
    chosen = settings.tensorrt
    refuse_unmade(settings)
    here = this_machine()
    graphs = latest_artifact(settings.paths.var, "graphs")
    max_batch = graphs.manifest.settings["export"]["max_batch"]
    sections = {name: getattr(settings, name).model_dump(mode="json") for name in ("export", "tensorrt")}
    with create_artifact(settings.paths.var, KIND, settings=sections, parents=(graphs,)) as draft:
        fallen_back: dict[str, str] = {}
        for spec, path in graphs_of(graphs).items():
            profile = step_profile(spec, graphs.manifest.tensors["sizes"], chosen, max_batch)
            plan = draft.path / f"{spec.name}.plan"
            try:
                check_onnx(path, spec, ExportError, flavour="tensorrt")
                facts = build_plan(
                    path, plan, spec.name, profile, chosen, here, settings.paths.var / "cache" / "tensorrt"
                )
            except ExportError as error:
                if not chosen.fallback:
                    raise
                plan.unlink(missing_ok=True)
                fallen_back[spec.name] = str(error)
                progress.say(f"export: {spec.name} has NO plan and falls back to ONNX: {error}")
                continue
            write_facts(draft.path, facts)
            progress.say(f"export: plan of {spec.name}, {plan.stat().st_size / 1e6:.1f} MB, {facts.build_seconds} s")
        draft.tensors |= {"machine": Machine.model_dump(here, mode="json"), "fallback": fallen_back}
    return draft.finished()


def refuse_unmade(settings: Settings) -> None:
    """Raises ExportError for settings that ask for what this version does not make."""
    if settings.tensorrt.precision != "fp32":
        raise ExportError(
            "graphs typed in fp16 are not made yet",
            where="tensorrt.precision",
            expected="fp32",
            found=settings.tensorrt.precision,
        )
    if settings.tensorrt.capacity_step:
        raise ExportError("padded item tables are not made yet", where="tensorrt.capacity_step", expected="0")


def write_facts(folder: Path, facts: PlanFacts) -> None:
    """Writes ``<step>.plan.json``."""
    write_json(folder / f"{facts.step}.plan.json", facts.model_dump(mode="json"))
