"""Weights that cannot be used are refused with the file's name and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.artifacts import create_artifact
from core.errors import ArtifactError
from training.models.weights import read_tensors, read_weights


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"items": torch.arange(6.0).reshape(2, 3), "rows": torch.arange(3)}, path)
    return path


def test_whole_file_is_read_as_it_was_written(file: Path) -> None:
    assert torch.equal(read_tensors(file)["items"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("kept", [0, 4, 20, 80])
def test_file_that_ends_early_is_refused(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match="cannot be read") as error:
        read_tensors(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"good": torch.ones(2), "bias": torch.tensor([1.0, bad])}, path)
    with pytest.raises(ArtifactError, match="not finite") as error:
        read_tensors(path)
    assert "tensor bias" in str(error.value)
    assert "1 of 2" in str(error.value)


def test_altered_artefact_is_refused_though_its_weights_are_finite(tmp_path: Path) -> None:
    with create_artifact(tmp_path, "mf", settings={}, seed=0, parents=()) as draft:
        save_file({"items": torch.ones(3)}, draft.path / "model.safetensors")
    artifact = draft.finished()
    assert torch.equal(read_weights(artifact, "model.safetensors")["items"], torch.ones(3))
    path = artifact.file("model.safetensors")
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="differs from its manifest"):
        read_weights(artifact, "model.safetensors")
