"""Artefacts: sealed whole or not there at all."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.artifacts import (
    Artifact,
    code_commit,
    create_artifact,
    latest_artifact,
    load_artifact,
    parent_artifact,
    sha256_of,
    write_json,
)
from core.errors import ArtifactError

START = datetime(2025, 1, 1, tzinfo=UTC)


def make(var: Path, kind: str = "dataset", *, parents: tuple[Artifact, ...] = (), at: datetime = START) -> Artifact:
    with create_artifact(var, kind, settings={"data": {"seed": 1}}, seed=3, parents=parents, now=lambda: at) as draft:
        write_json(draft.path / "facts.json", {"at": at.isoformat()})
        draft.tensors["n_items"] = 4
        draft.metrics["kept"] = 5
    return draft.finished()


def test_manifest_tells_what_was_written(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    loaded = load_artifact(artifact.path)
    assert loaded == artifact
    manifest = loaded.manifest
    assert (manifest.kind, manifest.seed, manifest.created) == ("dataset", 3, START)
    assert (manifest.tensors, manifest.metrics) == ({"n_items": 4}, {"kept": 5})
    assert manifest.settings == {"data": {"seed": 1}}
    (record,) = manifest.files
    assert record.path == "facts.json"
    assert record.sha256 == sha256_of(artifact.file("facts.json"))
    assert record.size_bytes == artifact.file("facts.json").stat().st_size
    assert manifest.environment["numpy"]
    assert manifest.code_commit == code_commit()


def test_manifest_digest_is_that_of_the_file(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    assert artifact.manifest.digest() == sha256_of(artifact.path / "manifest.json")


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    drafts = []

    def interrupted() -> None:
        with create_artifact(tmp_path, "dataset", settings={}) as draft:
            drafts.append(draft)
            write_json(draft.path / "facts.json", 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list((tmp_path / "artifacts" / "dataset").iterdir())
    with pytest.raises(ArtifactError, match="not complete"):
        drafts[0].finished()


def test_killed_process_leaves_nothing_that_counts(tmp_path: Path) -> None:
    older = make(tmp_path)
    code = (
        "import os, pathlib, sys\n"
        "from core.artifacts import create_artifact, write_json\n"
        "with create_artifact(pathlib.Path(sys.argv[1]), 'dataset', settings={}) as draft:\n"
        "    write_json(draft.path / 'facts.json', 1)\n"
        "    os._exit(9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[3])
    assert run.returncode == 9
    assert len(list((tmp_path / "artifacts" / "dataset").iterdir())) == 2
    assert latest_artifact(tmp_path, "dataset") == older


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.joblib", "model"])
def test_pickle_is_refused(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(ArtifactError, match="file kind not allowed"),
        create_artifact(tmp_path, "mf", settings={}) as draft,
    ):
        (draft.path / name).write_bytes(b"x")
    assert not list((tmp_path / "artifacts" / "mf").iterdir())


def test_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text("1")
    with (
        pytest.raises(ArtifactError, match="file kind not allowed"),
        create_artifact(tmp_path, "mf", settings={}) as draft,
    ):
        (draft.path / "link.json").symlink_to(tmp_path / "outside.json")


def test_untouched_artifact_verifies(tmp_path: Path) -> None:
    make(tmp_path).verify()


def test_altered_file_is_found_with_the_command_that_mends_it(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    artifact.file("facts.json").write_text("{}")
    with pytest.raises(ArtifactError, match="differs from its manifest") as caught:
        artifact.verify()
    assert "conch dataset" in str(caught.value.next_step)


def test_missing_file_is_found(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    artifact.file("facts.json").unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        artifact.verify()


def test_file_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    (artifact.path / "late.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"no file late.json"):
        artifact.file("late.json")


def test_latest_is_the_newest(tmp_path: Path) -> None:
    newest = make(tmp_path, at=START + timedelta(milliseconds=1))
    make(tmp_path)
    assert latest_artifact(tmp_path, "dataset") == newest


@pytest.mark.parametrize(
    ("kind", "command"), [("dataset", "conch dataset"), ("mf", "conch train"), ("gat", "conch train")]
)
def test_latest_names_the_command_when_there_is_none(tmp_path: Path, kind: str, command: str) -> None:
    with pytest.raises(ArtifactError, match=f"no {kind} artefact yet") as caught:
        latest_artifact(tmp_path, kind)
    assert command in str(caught.value.next_step)


def test_parent_is_found_among_newer_ones(tmp_path: Path) -> None:
    parent = make(tmp_path)
    child = make(tmp_path, "mf", parents=(parent,))
    make(tmp_path, at=START + timedelta(days=1))
    assert parent_artifact(child, tmp_path, "dataset") == parent


def test_parent_that_was_edited_or_is_gone_is_refused(tmp_path: Path) -> None:
    parent = make(tmp_path)
    child = make(tmp_path, "mf", parents=(parent,))
    manifest = parent.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(ArtifactError, match="is gone"):
        parent_artifact(child, tmp_path, "dataset")


def test_folder_without_or_with_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no artefact here"):
        load_artifact(tmp_path)
    (tmp_path / "manifest.json").write_text('{"kind": 1}')
    with pytest.raises(ArtifactError, match="manifest cannot be read"):
        load_artifact(tmp_path)


def test_artifacts_cannot_be_changed(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    with pytest.raises(ValidationError):
        artifact.manifest.__setattr__("seed", 5)
