from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import ReleaseError
from serving.lint import lint_repository


@pytest.fixture
def repository(release: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(release / "repository", tmp_path / "repository"))


def edit(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text(encoding="utf-8")
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text, f"{pattern} is not in {path}"
    path.write_text(changed, encoding="utf-8")


def test_a_fresh_release_passes(repository: Path) -> None:
    lint_repository(repository)


def test_compiled_python_beside_model_py_passes(repository: Path) -> None:
    (repository / "context" / "1" / "__pycache__").mkdir()
    lint_repository(repository)


def test_missing_repository_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="no model repository") as error:
        lint_repository(tmp_path / "nothing")
    assert "conch release" in str(error.value.next_step)


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a model is missing": (lambda r: shutil.rmtree(r / "rank"), "models in the repository"),
    "a graph of similar items is missing": (lambda r: shutil.rmtree(r / "nearest_items"), "models in the repository"),
    "a graph without its ensemble": (lambda r: shutil.rmtree(r / "similar_users"), "models in the repository"),
    "similar items pinned to another version": (
        lambda r: edit(r / "similar_items" / "config.pbtxt", "model_version: 1", "model_version: 2"),
        "not pinned",
    ),
    "similar items without a step": (
        lambda r: edit(r / "similar_items" / "config.pbtxt", '"nearest_items"', '"rank"'),
        "wrong steps",
    ),
    "no users to name": (lambda r: (r / "name_users" / "1" / "users.parquet").unlink(), "files of the version"),
    "no tables to re-rank with": (lambda r: (r / "respond" / "1" / "rerank.npz").unlink(), "files of the version"),
    "an unmapped input": (
        lambda r: edit(r / "similar_items" / "config.pbtxt", r'input_map \{\s*key: "k"\s*value: "k"\s*\}', ""),
        "input k of respond",
    ),
    "a tensor that nothing reads": (
        lambda r: edit(
            r / "similar_items" / "config.pbtxt",
            r'output_map \{\s*key: "exclude_rows"',
            'output_map { key: "user_features" value: "user_features" }\n output_map { key: "exclude_rows"',
        ),
        "nothing reads",
    ),
    "a stray model": (lambda r: (r / "evil").mkdir(), "models in the repository"),
    "a stray file beside the models": (lambda r: (r / "notes.md").write_text("x"), "models in the repository"),
    "a stray file in a model": (lambda r: (r / "rank" / "MANIFEST").write_text("x"), "stray entry"),
    "a staging folder in a model": (lambda r: (r / "rank" / "2.tmp").mkdir(), "stray entry"),
    "a version above int64": (lambda r: (r / "rank" / "99999999999999999999").mkdir(), "stray entry"),
    "version zero": (lambda r: (r / "rank" / "0").mkdir(), "stray entry"),
    "a version with a leading zero": (lambda r: (r / "rank" / "01").mkdir(), "stray entry"),
    "no config": (lambda r: (r / "rank" / "config.pbtxt").unlink(), "no config.pbtxt"),
    "a broken config": (lambda r: (r / "rank" / "config.pbtxt").write_text("name: {"), "cannot be read"),
    "another name": (lambda r: edit(r / "rank" / "config.pbtxt", '"rank"', '"other"'), "wrong name"),
    "no graph": (lambda r: (r / "rank" / "1" / "model.onnx").unlink(), "files of the version"),
    "no model.py": (lambda r: (r / "context" / "1" / "model.py").unlink(), "files of the version"),
    "no state": (lambda r: (r / "context" / "1" / "history.sqlite").unlink(), "files of the version"),
    "an empty graph": (lambda r: (r / "rank" / "1" / "model.onnx").write_bytes(b""), "empty file"),
    "a stray file in a version": (lambda r: (r / "rank" / "1" / "x.py").write_text("1"), "files of the version"),
    "a linked graph": (
        lambda r: (
            shutil.move(r / "rank" / "1" / "model.onnx", r.parent / "m.onnx"),
            (r / "rank" / "1" / "model.onnx").symlink_to(r.parent / "m.onnx"),
        ),
        "not a plain file",
    ),
    "a linked version": (
        lambda r: (
            shutil.move(r / "rank" / "1", r.parent / "rank1"),
            (r / "rank" / "1").symlink_to(r.parent / "rank1"),
        ),
        "symbolic link",
    ),
    "a policy without its version": (
        lambda r: edit(r / "rank" / "config.pbtxt", "versions: 1", "versions: 1 versions: 2"),
        "no folder",
    ),
    "an open policy": (
        lambda r: edit(r / "rank" / "config.pbtxt", r"specific \{\s*versions: 1\s*\}", "latest { num_versions: 1 }"),
        "not specific",
    ),
    "a step without a pin": (
        lambda r: edit(r / "recommend" / "config.pbtxt", "model_version: 1", "model_version: -1"),
        "not pinned",
    ),
    "a step pinned to another version": (
        lambda r: edit(r / "recommend" / "config.pbtxt", "model_version: 1", "model_version: 2"),
        "not pinned",
    ),
    "a larger ensemble batch": (
        lambda r: edit(r / "recommend" / "config.pbtxt", "max_batch_size: 16", "max_batch_size: 17"),
        "larger batches",
    ),
    "no batch": (lambda r: edit(r / "rank" / "config.pbtxt", "max_batch_size: 16", ""), "max_batch_size is missing"),
    "another type in a leaf": (
        lambda r: edit(r / "rank" / "config.pbtxt", 'name: "mf_scores"\n  data_type: TYPE_FP32',
                       'name: "mf_scores" data_type: TYPE_FP16'),
        "input mf_scores of rank",
    ),
    "other dims in a leaf": (lambda r: edit(r / "recall_mf" / "config.pbtxt", "dims: 40", "dims: 41"), "mf_rows"),
    "another output type": (
        lambda r: edit(r / "recommend" / "config.pbtxt", 'name: "scores"\n  data_type: TYPE_FP32',
                       'name: "scores" data_type: TYPE_INT64'),
        "output scores",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_repository_is_refused(repository: Path, name: str) -> None:
    breakage, message = BREAKAGES[name]
    breakage(repository)
    with pytest.raises(ReleaseError, match=message) as error:
        lint_repository(repository)
    assert error.value.where
