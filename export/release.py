"""The release stage: graphs, configs, vocabulary and histories become one unit of deployment."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import Artifact, create_artifact, latest_artifact, load_artifact, parent_artifact, write_json
from core.dataset import Dataset, load_dataset
from core.progress import SILENT, Progress
from core.settings import ROOT, Settings
from core.tensors import CONTEXT, RANK, RECALL_GAT, RECALL_MF, RESPOND, STEPS
from export.config import Sizes, render_configs
from export.lint import lint_repository
from serving.history import write_history

GRAPHS = (RECALL_MF, RECALL_GAT, RANK)


def assemble_release(settings: Settings, progress: Progress = SILENT) -> Artifact:
    """Assembles the newest graphs into a release artefact and lints it.

    The release's version is one above the newest one's; it names the version folders of all its models.

    Raises:
        ArtifactError: Nothing exported yet.
        ReleaseError: The assembled repository breaks a rule that Triton would choke on.
    """
    var = settings.paths.var
    graphs = latest_artifact(var, "graphs")
    data = parent_artifact(graphs, var, "dataset")
    trained = parent_artifact(graphs, var, "mf")
    dataset = load_dataset(data)
    fit = tuple(trained.manifest.settings["train"]["fit"])
    version = next_version(var)
    release_id = f"r{version:06d}"
    sizes = Sizes(
        **graphs.manifest.tensors["sizes"],
        n_items=dataset.n_items,
    )
    with create_artifact(
        var,
        "release",
        settings={"serving": settings.serving.model_dump(mode="json"), "export": graphs.manifest.settings["export"]},
        seed=graphs.manifest.seed,
        parents=(data, graphs),
    ) as draft:
        repository = draft.path / "repository"
        max_batch = int(graphs.manifest.settings["export"]["max_batch"])
        for name, text in render_configs(version, sizes, max_batch, settings.serving).items():
            (repository / name / str(version)).mkdir(parents=True)
            (repository / name / "config.pbtxt").write_text(text, encoding="utf-8")
    return draft.finished()


def next_version(var: Path) -> int:
    """One above the highest version of any release artefact."""
    folder = var / "artifacts" / "release"
    known = [load_artifact(path.parent) for path in folder.glob("[0-9]*/manifest.json")]
    return 1 + max((int(release.manifest.tensors["version"]) for release in known), default=0)
