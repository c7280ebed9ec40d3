"""config.pbtxt of every flavour: golden files, parsed back, and free of findings."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from pydantic import ValidationError
from tritonclient.grpc import model_config_pb2 as pb

from core.sections import ServingSettings
from export.config import render_configs
from serving.lint import repository_findings

GOLDEN = Path(__file__).parent / "flavours"
SIZES = {"K": 200, "R": 100, "F": 1}
FLAVOURS = {
    "wheel": ServingSettings(),
    "cuda": ServingSettings(flavour="cuda", device="cuda"),
    "tensorrt_provider": ServingSettings(flavour="tensorrt_provider", device="cuda"),
    "tensorrt_plan": ServingSettings(flavour="tensorrt_plan", device="cuda"),
}


def rendered(flavour: str) -> dict[str, str]:
    return render_configs(1, ("mf", "gat"), SIZES, 64, FLAVOURS[flavour])


def parsed(flavour: str, model: str) -> pb.ModelConfig:
    return text_format.Parse(rendered(flavour)[model], pb.ModelConfig())


@pytest.mark.parametrize("model", ["recall_mf", "rank"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_flavour_is_what_its_golden_file_says(flavour: str, model: str) -> None:
    golden = (GOLDEN / flavour / f"{model}.pbtxt").read_text(encoding="utf-8")
    assert rendered(flavour)[model] == golden
    assert text_format.Parse(golden, pb.ModelConfig()) == parsed(flavour, model)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_configs_of_a_flavour_break_no_rule(flavour: str, tmp_path: Path) -> None:
    for model, text in rendered(flavour).items():
        (tmp_path / model).mkdir()
        (tmp_path / model / "config.pbtxt").write_text(text, encoding="utf-8")
    assert repository_findings(tmp_path, FLAVOURS[flavour], files=False) == []


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_python_steps_and_ensembles_are_the_same_in_every_flavour(flavour: str) -> None:
    for model in ("context", "respond", "recommend"):
        assert rendered(flavour)[model] == rendered("wheel")[model]


def test_a_plan_has_a_backend_and_a_file_of_its_own() -> None:
    config = parsed("tensorrt_plan", "rank")
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert not config.parameters


def test_tensorrt_inside_onnxruntime_keeps_its_engines_and_sets_no_precision() -> None:
    (one,) = parsed("tensorrt_provider", "rank").optimization.execution_accelerators.gpu_execution_accelerator
    assert one.parameters["trt_engine_cache_enable"] == "true"
    assert one.parameters["trt_engine_cache_path"]
    assert "precision_mode" not in one.parameters


def test_a_gpu_flavour_without_gpu_is_refused() -> None:
    with pytest.raises(ValidationError, match='needs device = "cuda"'):
        ServingSettings(flavour="tensorrt_plan")
