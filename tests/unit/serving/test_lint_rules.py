"""Each rule of the lint by its name, on a repository broken in that one way."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from tritonclient.grpc import model_config_pb2 as pb

from core.errors import ReleaseError
from core.sections import ServingSettings
from core.settings import ROOT
from serving.lint import lint_repository, read_config, repository_findings

Group = pb.ModelInstanceGroup


@pytest.fixture
def repository(release: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(release / "repository", tmp_path / "repository"))


def change(model: str, edit: Callable[[pb.ModelConfig], object]) -> Callable[[Path], None]:
    def breakage(repository: Path) -> None:
        config = read_config(repository / model)
        edit(config)
        (repository / model / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")

    return breakage


def graph(edit: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    def breakage(repository: Path) -> None:
        path = repository / "recall_mf" / "1" / "model.onnx"
        model = onnx.load(path)
        edit(model)
        path.write_bytes(model.SerializeToString())

    return breakage


def cut(name: str, share: float = 0.5) -> Callable[[Path], None]:
    def breakage(repository: Path) -> None:
        path = repository / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return breakage


def poisoned(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def poison_tables(repository: Path) -> None:
    path = repository / "respond" / "1" / "rerank.npz"
    with np.load(path) as data:
        arrays = dict(data)
    arrays["vectors"][0, 0] = np.nan
    np.savez(path, **arrays)


def accelerator(name: str, **parameters: str) -> Callable[[pb.ModelConfig], None]:
    def edit(config: pb.ModelConfig) -> None:
        config.instance_group[0].kind = Group.KIND_GPU
        one = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name=name)
        for key, value in parameters.items():
            one.parameters[key] = value

    return edit


def loop(config: pb.ModelConfig) -> None:
    """The first recall step reads what the rank step makes."""
    recall = next(step for step in config.ensemble_scheduling.step if step.model_name == "recall_mf")
    recall.input_map["history_rows"] = "ranked_rows"


RULES: dict[str, Callable[[Path], object]] = {
    "models-present": lambda r: shutil.rmtree(r / "rank"),
    "no-links": lambda r: (r / "rank" / "2").symlink_to(r / "rank" / "1"),
    "version-name": lambda r: (r / "rank" / "12.tmp").mkdir(),
    "version-folder": change("rank", lambda c: c.version_policy.specific.versions.append(7)),
    "plain-files": lambda r: (
        shutil.move(r / "rank" / "1" / "model.onnx", r.parent / "x"),
        (r / "rank" / "1" / "model.onnx").symlink_to(r.parent / "x"),
    ),
    "empty-file": lambda r: (r / "rank" / "1" / "model.onnx").write_bytes(b""),
    "version-files": lambda r: (r / "rank" / "1" / "model.onnx").unlink(),
    "graph-protobuf": cut("rank/1/model.onnx"),
    "graph-weights": graph(poisoned),
    "graph-external-data": graph(external),
    "graph-dtype": graph(lambda m: setattr(m.graph.input[5].type.tensor_type, "elem_type", TensorProto.INT32)),
    "graph-signature": graph(lambda m: setattr(m.graph.input[5], "name", "other")),
    "step-source": cut("context/1/model.py", 0.4),
    "table-readable": cut("context/1/vocabulary.parquet"),
    "table-values": poison_tables,
    "config-readable": lambda r: (r / "rank" / "config.pbtxt").write_text('name: "rank" max_batchsize: 3'),
    "config-name": change("rank", lambda c: setattr(c, "name", "other")),
    "backend": change("rank", lambda c: setattr(c, "backend", "onnxruntme")),
    "model-file-name": change("rank", lambda c: setattr(c, "default_model_filename", "model.py")),
    "version-policy": change("rank", lambda c: c.version_policy.latest.SetInParent()),
    "max-batch": change("rank", lambda c: setattr(c, "max_batch_size", 0)),
    "preferred-batch": change("rank", lambda c: c.dynamic_batching.preferred_batch_size.append(99)),
    "queue-delay": change(
        "rank", lambda c: setattr(c.dynamic_batching, "max_queue_delay_microseconds", 5_000_000)
    ),
    "queue-policy": change(
        "rank", lambda c: setattr(c.dynamic_batching.default_queue_policy, "max_queue_size", 10)
    ),
    "dynamic-batching": change("rank", lambda c: c.ClearField("dynamic_batching")),
    "tensor-names": change("rank", lambda c: setattr(c.input[0], "name", "histories")),
    "tensor-dtype": change("rank", lambda c: setattr(c.input[0], "data_type", pb.TYPE_INT32)),
    "tensor-dims": change("rank", lambda c: c.input[0].dims.append(3)),
    "optional-input": change("rank", lambda c: setattr(c.input[0], "optional", True)),
    "response-cache": change("rank", lambda c: setattr(c.response_cache, "enable", True)),
    "unserved-part": change("context", lambda c: setattr(c.model_transaction_policy, "decoupled", True)),
    "parameters": change("rank", lambda c: c.parameters["threads"].SetInParent()),
    "ensemble-parts": change("recommend", lambda c: c.instance_group.add(count=1)),
    "instances": change("rank", lambda c: c.instance_group.pop()),
    "instance-gpu": change("context", lambda c: setattr(c.instance_group[0], "kind", Group.KIND_GPU)),
    "accelerator": change("rank", accelerator("openvino")),
    "precision-mode": change("rank", accelerator("tensorrt", precision_mode="FP16")),
    "engine-cache": change("rank", accelerator("tensorrt", trt_engine_cache_enable="true")),
    "warm-up": change("rank", lambda c: c.model_warmup.pop()),
    "pinned-steps": change(
        "recommend", lambda c: setattr(c.ensemble_scheduling.step[0], "model_version", -1)
    ),
    "pinned-version": change("recommend", lambda c: c.version_policy.specific.versions.append(2)),
    "ensemble-batch": change("recommend", lambda c: setattr(c, "max_batch_size", 99)),
    "ensemble-steps": change("recommend", lambda c: c.ensemble_scheduling.step.pop()),
    "tensor-graph": change(
        "recommend", lambda c: c.ensemble_scheduling.step[1].input_map.pop("history_ages", None)
    ),
    "tensor-unread": change(
        "similar_items",
        lambda c: c.ensemble_scheduling.step[0].output_map.update({"user_features": "user_features"}),
    ),
    "ensemble-loop": change("recommend", loop),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_what_it_is_for(repository: Path, rule: str) -> None:
    RULES[rule](repository)
    findings = repository_findings(repository)
    assert rule in {finding.rule for finding in findings}, findings
    assert all(str(repository) in finding.where and finding.what for finding in findings)


def test_unknown_keys_are_named(repository: Path) -> None:
    RULES["config-readable"](repository)
    with pytest.raises(ReleaseError, match="max_batchsize"):
        lint_repository(repository)


def test_all_faults_are_told_at_once(repository: Path) -> None:
    chosen = ("response-cache", "backend", "graph-weights", "instances", "ensemble-batch")
    for rule in chosen:
        RULES[rule](repository)
    assert set(chosen) <= {finding.rule for finding in repository_findings(repository)}
    with pytest.raises(ReleaseError) as error:
        lint_repository(repository)
    assert all(rule in str(error.value) for rule in chosen)


def test_gpu_instances_are_refused_on_a_server_without_gpu(repository: Path) -> None:
    change("rank", lambda c: setattr(c.instance_group[0], "kind", Group.KIND_GPU))(repository)
    assert repository_findings(repository) == []
    assert [f.rule for f in repository_findings(repository, ServingSettings())] == ["instance-gpu"]
    assert repository_findings(repository, ServingSettings(device="cuda")) == []


def test_a_history_of_another_format_is_refused(repository: Path) -> None:
    path = repository / "context" / "1" / "history.sqlite"
    path.write_bytes(path.read_bytes()[:3000] + bytes(3000))
    found = {finding.rule for finding in repository_findings(repository)}
    assert found == {"table-readable"}
    with pytest.raises(sqlite3.DatabaseError), sqlite3.connect(path) as database:
        database.execute("SELECT * FROM sqlite_master").fetchall()


def test_committed_configs_pass_by_themselves() -> None:
    assert repository_findings(ROOT / "model_repository", files=False) == []


@given(st.data())
@runs(max_examples=30)
def test_a_file_cut_anywhere_is_refused_by_name(
    release: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    repository = Path(shutil.copytree(release / "repository", tmp_path_factory.mktemp("cut") / "repository"))
    files = sorted(
        path for pattern in ("*.onnx", "*.parquet", "*.npz", "*.sqlite") for path in repository.rglob(pattern)
    )
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert any(finding.where.startswith(str(path)) for finding in repository_findings(repository))
