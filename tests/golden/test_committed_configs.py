"""model_repository/ holds what the code renders: byte for byte, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from core.ensembles import EXTRAS, leaf_steps, served_ensembles
from core.sections import ServingSettings
from export.config import COMMITTED, committed_configs, render_configs

SOURCES = ("mf", "gat")
SIZES = {"K": 7, "R": 5, "F": 2}


@pytest.mark.parametrize("path", committed_configs(), ids=lambda path: path.parent.name)
def test_committed_config_is_what_the_code_renders(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == committed_configs()[path], "run `python -m export.config`"


def test_committed_folder_holds_configs_and_thin_steps_only() -> None:
    found = {
        path.relative_to(COMMITTED).as_posix()
        for path in COMMITTED.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    ensembles = served_ensembles(SOURCES, EXTRAS)
    specs = (*leaf_steps(ensembles), *(ensemble.spec for ensemble in ensembles))
    python = ("context", "respond", "name_users", "rate_items")
    configs = {f"{spec.name}/config.pbtxt" for spec in specs}
    assert found == configs | {f"{name}/1/model.py" for name in python} | {"README.md"}
    for name in python:
        assert len((COMMITTED / name / "1" / "model.py").read_text().splitlines()) <= 60


def test_rendered_configs_parse_back_to_themselves() -> None:
    for name, text in render_configs(3, SOURCES, SIZES, 8).items():
        config = text_format.Parse(text, pb.ModelConfig())
        assert config.name == name
        assert text_format.MessageToString(config) in text


def test_every_step_is_pinned_to_the_release() -> None:
    ensemble = text_format.Parse(render_configs(12, SOURCES, SIZES, 8)["recommend"], pb.ModelConfig())
    assert {step.model_version for step in ensemble.ensemble_scheduling.step} == {12}
    assert list(ensemble.version_policy.specific.versions) == [12]


def test_ensemble_takes_no_larger_batch_than_its_steps_and_sets_nothing_triton_ignores() -> None:
    configs = {
        name: text_format.Parse(text, pb.ModelConfig()) for name, text in render_configs(1, SOURCES, SIZES, 8).items()
    }
    ensemble = configs.pop("recommend")
    assert all(ensemble.max_batch_size <= config.max_batch_size for config in configs.values())
    assert not ensemble.instance_group
    assert not ensemble.model_warmup
    assert not ensemble.HasField("optimization")


def test_no_queue_policy_because_mixed_shapes_stall_with_one() -> None:
    for text in render_configs(1, SOURCES, SIZES, 8).values():
        assert "queue_policy" not in text


def test_sizes_of_the_release_are_fixed_and_other_axes_dynamic() -> None:
    rank = text_format.Parse(render_configs(1, SOURCES, SIZES, 8)["rank"], pb.ModelConfig())
    dims = {tensor.name: list(tensor.dims) for tensor in (*rank.input, *rank.output)}
    assert dims["mf_rows"] == [7]
    assert dims["user_features"] == [2]
    assert dims["history_rows"] == [-1]
    assert dims["reason_rows"] == [5, 3]


def test_settings_reach_instances_and_threads() -> None:
    serving = ServingSettings(graph_instances=3, graph_threads=2, device="cuda", max_queue_delay_microseconds=50)
    configs = render_configs(1, SOURCES, SIZES, 8, serving)
    rank, context = (text_format.Parse(configs[name], pb.ModelConfig()) for name in ("rank", "context"))
    assert rank.instance_group[0].count == 3
    assert rank.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert rank.parameters["intra_op_thread_count"].string_value == "2"
    assert context.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU
    assert rank.dynamic_batching.max_queue_delay_microseconds == 50


def test_each_source_has_its_step_and_feeds_rank() -> None:
    configs = render_configs(1, ("gat", "ease", "mf"), SIZES, 8)
    assert list(configs) == ["context", "recall_gat", "recall_ease", "recall_mf", "rank", "respond", "recommend"]
    rank = text_format.Parse(configs["rank"], pb.ModelConfig())
    candidates = [tensor.name for tensor in rank.input if list(tensor.dims) == [7]]
    assert candidates == ["gat_rows", "gat_scores", "ease_rows", "ease_scores", "mf_rows", "mf_scores"]


def test_extra_ensembles_are_pinned_and_feed_every_input_of_their_steps() -> None:
    configs = {
        name: text_format.Parse(text, pb.ModelConfig())
        for name, text in render_configs(4, SOURCES, SIZES, 8, extras=tuple(EXTRAS)).items()
    }
    for name in EXTRAS:
        made = {tensor.name for tensor in configs[name].input}
        read = {tensor.name for tensor in configs[name].output}
        for step in configs[name].ensemble_scheduling.step:
            assert step.model_version == 4
            optional = {tensor.name for tensor in configs[step.model_name].input if tensor.optional}
            assert {tensor.name for tensor in configs[step.model_name].input} - set(step.input_map) <= optional
            assert set(step.input_map.values()) <= made
            made |= set(step.output_map.values())
            read |= set(step.input_map.values())
        assert made <= read, "Triton refuses tensors that nothing reads"
        assert {tensor.name for tensor in configs[name].output} <= made


def test_similar_ensembles_share_the_steps_of_recommend_and_are_pinned_like_it() -> None:
    configs = render_configs(4, SOURCES, SIZES, 8, extras=EXTRAS)
    assert list(configs)[-4:] == [*EXTRAS, "recommend"]
    for name, steps in {
        "similar_items": ["context", "nearest_items", "respond"],
        "similar_users": ["context", "nearest_users", "name_users"],
    }.items():
        scheduled = text_format.Parse(configs[name], pb.ModelConfig()).ensemble_scheduling.step
        assert [step.model_name for step in scheduled] == steps
        assert {step.model_version for step in scheduled} == {4}


def test_inputs_that_an_ensemble_does_not_have_are_left_out_where_they_are_optional() -> None:
    config = text_format.Parse(render_configs(1, SOURCES, SIZES, 8, extras=EXTRAS)["similar_items"], pb.ModelConfig())
    context, _, respond = config.ensemble_scheduling.step
    assert dict(context.input_map) == {"session_items": "items", "exclude_items": "exclude_items"}
    assert "diversity" not in respond.input_map
    assert respond.input_map["final_order"] == "final_order"


def test_similar_models_are_served_only_where_asked() -> None:
    assert not {"nearest_items", "nearest_users", "name_users"} & set(render_configs(1, SOURCES, SIZES, 8))
    assert "name_users" not in render_configs(1, SOURCES, SIZES, 8, extras=("similar_items",))
