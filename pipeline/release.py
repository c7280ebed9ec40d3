"""The release stage: graphs, configs, vocabulary and histories become one unit of deployment."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.artifacts import Artifact, create_artifact, latest_artifact, load_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.ensembles import leaf_steps, served_ensembles
from core.errors import ReleaseError
from core.progress import SILENT, Progress
from core.settings import ROOT, Settings
from core.similarity import directions
from core.tensors import CONTEXT, NAME_USERS, RATE, RATE_ITEMS, RESPOND, SIMILAR_USERS
from export.config import render_configs
from export.similar import similar_source
from pipeline.rules import Rules, load_rules
from serving.golden import record_golden
from serving.lint import lint_repository
from serving.release import GRAPH_FILE, REPOSITORY, STEP_FILE, ReleaseInfo
from serving.rerank import ItemTables, Reranker
from serving.state import (
    Catalogue,
    write_catalogue_state,
    write_context_state,
    write_respond_state,
    write_users_state,
)
from training.models.recall import load_model

MODEL_SOURCES = ROOT / "model_repository"
GOLDEN_USERS, GOLDEN_ITEMS = 8, 3
"""Questions that a server has to answer as the release did when it was made."""


def assemble_release(settings: Settings, progress: Progress = SILENT) -> Artifact:
    """Assembles the newest graphs into a release artefact and lints it.

    The release's version is one above the newest one's; it names the version folders of all its models.

    Raises:
        ArtifactError: Nothing exported yet.
        ReleaseError: The assembled repository breaks a rule that Triton would choke on.
    """
    if settings.serving.flavour == "tensorrt_plan":
        raise ReleaseError(
            "releases of TensorRT plans are not assembled yet",
            where="serving.flavour",
            expected="wheel, cuda or tensorrt_provider",
            next_step="put each plan of the artefact `plans` as model.plan, with plan.json, into the version folders",
        )
    var = settings.paths.var
    graphs = latest_artifact(var, "graphs")
    data = parent_artifact(graphs, var, "dataset")
    sources = tuple(graphs.manifest.tensors["sources"])
    extras = tuple(graphs.manifest.tensors["extras"])
    fit = tuple(parent_artifact(graphs, var, sources[0]).manifest.settings["train"]["fit"])
    version = next_version(var)
    with create_artifact(
        var,
        "release",
        settings={
            **{name: getattr(settings, name).model_dump(mode="json") for name in ("serving", "rerank")},
            **graphs.manifest.settings,
        },
        seed=graphs.manifest.seed,
        parents=(data, graphs),
    ) as draft:
        dataset = load_dataset(data)
        rules = load_rules(settings.rerank.rules, data, dataset.items)
        ensembles = served_ensembles(sources, extras)
        info = ReleaseInfo(
            release_id=f"r{version:06d}",
            version=version,
            sources=sources,
            extras=extras,
            sizes=graphs.manifest.tensors["sizes"],
            n_items=dataset.n_items,
            max_batch=graphs.manifest.settings["export"]["max_batch"],
            created=draft.created,
            parents={parent.manifest.kind: parent.manifest.digest() for parent in (data, graphs)},
            facts={"fit": fit},
        )
        info.write(draft.path)
        repository = draft.path / REPOSITORY
        _write_configs(repository, info, settings)
        for spec in leaf_steps(ensembles):
            folder = repository / spec.name / str(version)
            if spec.backend == "python":
                shutil.copyfile(MODEL_SOURCES / spec.name / "1" / STEP_FILE, folder / STEP_FILE)
            else:
                shutil.copyfile(graphs.file(f"{spec.name}.onnx"), folder / GRAPH_FILE)
        model = load_model(parent_artifact(graphs, var, similar_source(settings.similar, sources)))
        reranker = _reranker(settings, model.similarity_vectors.numpy(), rules)
        _write_states(repository, info, dataset, fit, reranker, rules)
        for ensemble in ensembles:  # Triton wants a version folder; artefacts list files
            info.write(repository / ensemble.spec.name / str(version))
        lint_repository(repository)
        record_golden(draft.path, _golden_users(dataset, fit), dataset.items.ids[:GOLDEN_ITEMS].tolist())
        draft.tensors |= {
            "release_id": info.release_id,
            "version": version,
            "fit": fit,
            "sizes": info.sizes,
            "sources": sources,
        }
    release = draft.finished()
    size_mb = sum(record.size_bytes for record in release.manifest.files) / 1e6
    progress.say(
        f"release: {info.release_id}, {dataset.n_items:,} items, {dataset.n_users:,} users, {size_mb:.1f} MB, "
        f"{release.manifest.seconds:.1f} s"
    )
    return release


def _golden_users(dataset: Dataset, fit: tuple[str, ...]) -> list[str]:
    """Users of every length of history, those without one among them, and a stranger."""
    by_length = np.argsort(dataset.histories(fit).lengths, kind="stable")
    places = np.linspace(0, len(by_length) - 1, GOLDEN_USERS).astype(int)
    return [*(str(dataset.users.ids[row]) for row in by_length[places]), "conch-golden-stranger"]


def next_version(var: Path) -> int:
    """One above the highest version of any release artefact."""
    folder = var / "artifacts" / "release"
    known = [load_artifact(path.parent) for path in folder.glob("[0-9]*/manifest.json")]
    return 1 + max((int(release.manifest.tensors["version"]) for release in known), default=0)


def _reranker(settings: Settings, item_vectors: np.ndarray, rules: Rules) -> Reranker:
    """What the respond step orders by; without a method it needs no vectors."""
    chosen = settings.rerank
    vectors = directions(item_vectors) if chosen.method != "none" else np.zeros((len(item_vectors), 0))
    tables = ItemTables(vectors.astype(np.float16), rules.boosts, rules.groups, rules.limits)
    return Reranker(chosen.method, chosen.diversity, chosen.pool, tables)


def _write_configs(repository: Path, info: ReleaseInfo, settings: Settings) -> None:
    texts = render_configs(info.version, info.sources, info.sizes, info.max_batch, settings.serving, info.extras)
    for name, text in texts.items():
        (repository / name / str(info.version)).mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text, encoding="utf-8")


def _write_states(
    repository: Path, info: ReleaseInfo, dataset: Dataset, fit: tuple[str, ...], reranker: Reranker, rules: Rules
) -> None:
    fitted = dataset.events.of_splits(fit)
    counts = np.bincount(fitted.item_rows, minlength=dataset.n_items).astype(np.int64)
    catalogue = Catalogue(dataset.items, counts, rules.excluded)
    steps = (CONTEXT, RESPOND, NAME_USERS, RATE_ITEMS)
    folders = {step: repository / step.name / str(info.version) for step in steps}
    histories = dataset.histories(fit)
    write_context_state(
        folders[CONTEXT],
        info.release_id,
        catalogue,
        dataset.users,
        histories,
        dataset.user_features,
        dataset.user_codebook,
    )
    titled = replace(catalogue, titles=dataset.titles)  # for people: the gateway shows them
    write_respond_state(folders[RESPOND], info.release_id, titled, reranker)
    if RATE.name in info.extras:
        write_catalogue_state(folders[RATE_ITEMS], info.release_id, catalogue)
    if SIMILAR_USERS.name in info.extras:
        write_users_state(folders[NAME_USERS], info.release_id, dataset.users)
