"""The publish protocol without a server: what lies on disk after every step, every crash and every refusal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import onnx
import pytest

from core.artifacts import load_artifact
from core.errors import ArtifactError, BlessingError, ConchError, PublishError, ReleaseError
from serving import audit
from serving.activate import install_release
from serving.control import Replica
from serving.lease import acquire, lease_file
from serving.ledger import journal_file, read_ledger
from serving.live import prepare_start
from serving.placing import alias_config, release_of, releases_in
from serving.pointer import Pointer, pointer_file, read_pointer, replace_pointer
from serving.publish import Publisher
from serving.release import live_repository
from tests.sealed_release import bless, seal_release
from tests.synthetic_release import Shape, write_synthetic_release

WIDER = Shape(returned=25)
STRIDE = 1 if os.environ.get("CONCH_FULL") else 5
"""Crash at every step, or at every fifth for a quick run."""


class CrashError(BaseException):
    """Stands for SIGKILL: nothing that a publisher catches."""


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A var folder with releases 1 to 5; 5 has longer lists and similar users."""
    var = tmp_path_factory.mktemp("sealed") / "var"
    for version in (1, 2, 3, 4):
        seal_release(var, version)
    seal_release(var, 5, shape=WIDER, extras=("similar_items", "similar_users"))
    return var


@pytest.fixture
def var(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "var"))


def release(var: Path, version: int) -> Path:
    return sorted((var / "artifacts" / "release").iterdir())[version - 1]


def publisher(var: Path, **options: Any) -> Publisher:
    return Publisher(var, "tester", **options)


def live(var: Path) -> str:
    """The release that a start would serve, after the checks that a start makes."""
    models = prepare_start(var)
    repository = live_repository(var)
    assert models[-1] == "recommend"
    found = release_of(repository)
    assert found is not None
    assert found == read_pointer(pointer_file(var)).stable  # type: ignore[union-attr]
    assert alias_config(repository, "recommend", found) is not None
    return found


def steps_of(work: Callable[[Callable[[str], None]], object]) -> int:
    names: list[str] = []
    work(names.append)
    return len(names)


def crashing(at: int) -> Callable[[str], None]:
    count = iter(range(at + 1))

    def after(step: str) -> None:
        if next(count) == at:
            raise CrashError(step)

    return after


def test_releases_follow_each_other_and_three_stay(var: Path) -> None:
    for version in (1, 2, 3, 4):
        outcome = publisher(var).activate(release(var, version), reason="next")
        assert outcome.after.stable == live(var) == f"r00000{version}"
    assert sorted(releases_in(live_repository(var))) == ["r000002", "r000003", "r000004"]
    assert sorted(path.name for path in (live_repository(var) / "rank").iterdir()) == ["2", "3", "4", "config.pbtxt"]
    assert audit.verify(audit.audit_file(var)).lines == 4
    assert not journal_file(var).exists()


def test_a_release_of_another_shape_lies_beside_under_other_names_and_back(var: Path) -> None:
    for version in (4, 5):
        publisher(var).activate(release(var, version), reason="next")
    assert live(var) == "r000005"
    names = {path.name.partition(".")[0] for path in live_repository(var).glob("*.????????")}
    assert {"rank", "respond"} <= names
    assert (live_repository(var) / "similar_users").is_dir()
    publisher(var).rollback(reason="longer lists are worse")
    assert live(var) == "r000004"
    assert not (live_repository(var) / "similar_users").exists()


@pytest.mark.parametrize("nth", [2, 5], ids=["same shape", "another shape"])
def test_a_crash_at_any_step_leaves_old_or_new_and_a_rerun_converges(sealed: Path, tmp_path: Path, nth: int) -> None:
    base = Path(shutil.copytree(sealed, tmp_path / "base"))
    publisher(base).activate(release(base, 1), reason="first")
    activate = lambda var, after: publisher(var, after=after).activate(release(var, nth), reason="x")  # noqa: E731
    copy = lambda at: Path(shutil.copytree(base, tmp_path / str(at)))  # noqa: E731
    total = steps_of(lambda after: activate(copy("count"), after))
    seen = set()
    for at in range(total - 1, -1, -STRIDE):
        var = copy(at)
        with pytest.raises(CrashError):
            activate(var, crashing(at))
        seen.add(live(var))
        publisher(var).activate(release(var, nth), reason="again")
        assert live(var) == f"r00000{nth}"
        assert sorted(releases_in(live_repository(var))) == sorted({"r000001", f"r00000{nth}"})
        shutil.rmtree(var)
    assert seen == {"r000001", f"r00000{nth}"}


def test_a_crash_during_the_first_release_needs_no_repair(sealed: Path, tmp_path: Path) -> None:
    total = steps_of(
        lambda after: publisher(Path(shutil.copytree(sealed, tmp_path / "count")), after=after).activate(
            release(tmp_path / "count", 1), reason="x"
        )
    )
    for at in range(total - 1, -1, -STRIDE):
        var = Path(shutil.copytree(sealed, tmp_path / str(at)))
        with pytest.raises(CrashError):
            publisher(var, after=crashing(at)).activate(release(var, 1), reason="x")
        publisher(var).activate(release(var, 1), reason="again")
        assert live(var) == "r000001"
        shutil.rmtree(var)


def test_rollback_needs_only_what_is_kept_and_blocks_the_bad_one(var: Path) -> None:
    for version in (1, 2):
        publisher(var).activate(release(var, version), reason="next")
    hidden = var / "artifacts"
    hidden.rename(var / "away")
    assert publisher(var).rollback(reason="clicks fell").after.stable == live(var) == "r000001"
    (var / "away").rename(hidden)
    with pytest.raises(PublishError, match="r000002 is blocked") as error:
        publisher(var).activate(release(var, 2), reason="once more")
    assert error.value.found == "clicks fell"
    with pytest.raises(PublishError, match="no such release to go back to"):
        publisher(var).rollback(reason="further")
    publisher(var).activate(release(var, 2), reason="measured anew", unblessed=True)
    assert live(var) == "r000002"


def test_canary_grows_with_the_same_users_becomes_live_or_goes(var: Path) -> None:
    publisher(var).activate(release(var, 1), reason="first")
    first = publisher(var).start_canary(release(var, 2), weight=0.01, reason="try").after
    second = publisher(var).move_canary(0.25, reason="fine").after
    assert (first.canary, second.canary, second.weight, second.salt) == ("r000002", "r000002", 0.25, first.salt)
    with pytest.raises(PublishError, match="no canary can start"):
        publisher(var).start_canary(release(var, 3), weight=0.01, reason="try")
    assert publisher(var).move_canary(1.0, reason="fine").after == Pointer(epoch=4, stable="r000002")
    publisher(var).start_canary(release(var, 3), weight=0.01, reason="try")
    assert publisher(var).abort_canary(reason="errors").after.canary is None
    assert read_ledger(var).blocked == {"r000003": "errors"}
    publisher(var).settle()
    assert sorted(releases_in(live_repository(var))) == ["r000001", "r000002"]


def test_a_shadow_is_loaded_and_answers_nobody(var: Path) -> None:
    publisher(var).activate(release(var, 1), reason="first")
    pointer = publisher(var).start_canary(release(var, 2), weight=0.0, reason="look", shadow=True).after
    assert (pointer.shadow, pointer.canary, pointer.release_of("anybody")) == ("r000002", None, "r000001")
    assert "recommend.r000002" in prepare_start(var)


def test_an_installed_repository_without_a_pointer_is_taken_over(var: Path) -> None:
    install_release(release(var, 1), live_repository(var))
    publisher(var).activate(release(var, 2), reason="next")
    assert live(var) == "r000002"
    assert publisher(var).rollback(reason="back").after.stable == live(var) == "r000001"


def test_a_release_without_a_blessing_is_refused_and_an_operator_may_answer_for_it(var: Path) -> None:
    publisher(var).activate(release(var, 1), reason="first")
    (var / "blessings" / "r000002.json").unlink()
    with pytest.raises(BlessingError, match="no blessing"):
        publisher(var).activate(release(var, 2), reason="x")
    assert live(var) == "r000001"
    publisher(var).activate(release(var, 2), reason="I measured it", unblessed=True)
    record = audit.records(audit.audit_file(var))[-1]
    assert (record["inputs"]["unblessed"], record["reason"]) == (True, "I measured it")


def test_a_blessing_that_ran_out_is_refused(var: Path) -> None:
    late = datetime.now(UTC) + timedelta(days=3)
    with pytest.raises(BlessingError, match="not in force"):
        publisher(var, now=lambda: late).activate(release(var, 1), reason="x")


def test_a_blessing_of_another_release_is_refused(var: Path) -> None:
    bless(var, load_artifact(release(var, 3)), "r000002")
    with pytest.raises(BlessingError, match="another release"):
        publisher(var).activate(release(var, 2), reason="x")


def _flip_bit(folder: Path) -> None:
    path = folder / "repository" / "rank" / "2" / "model.onnx"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def _truncate_step(folder: Path) -> None:
    path = folder / "repository" / "context" / "2" / "model.py"
    path.write_text(path.read_text()[:200])


def _pickle(folder: Path) -> None:
    (folder / "repository" / "context" / "2" / "state.pkl").write_bytes(b"x")


def _symlink(folder: Path) -> None:
    path = folder / "repository" / "rank" / "2" / "model.onnx"
    path.rename(folder.parent.parent / "elsewhere.onnx")
    path.symlink_to(folder.parent.parent / "elsewhere.onnx")


def _hardlink(folder: Path) -> None:
    os.link(folder / "repository" / "rank" / "2" / "model.onnx", folder.parent.parent / "elsewhere.onnx")


def _no_model(folder: Path) -> None:
    (folder / "repository" / "rank" / "2" / "model.onnx").unlink()


def _stray(folder: Path) -> None:
    (folder / "repository" / "rank" / "2" / "more.json").write_text("{}")


@pytest.mark.parametrize("fault", [_flip_bit, _truncate_step, _pickle, _symlink, _hardlink, _no_model, _stray])
def test_altered_files_are_refused_before_anything_is_placed(var: Path, fault: Callable[[Path], None]) -> None:
    publisher(var).activate(release(var, 1), reason="first")
    fault(release(var, 2))
    for unblessed in (False, True):
        with pytest.raises((ReleaseError, ArtifactError)):
            publisher(var).activate(release(var, 2), reason="x", unblessed=unblessed)
    assert live(var) == "r000001"
    assert not (live_repository(var) / "rank" / "2").exists()


@pytest.mark.parametrize("name", ["0", "01", "abc", "-1", "99999999999999999999"])
def test_a_version_name_that_ends_triton_is_refused(var: Path, name: str) -> None:
    folder = release(var, 2) / "repository" / "rank"
    shutil.copytree(folder / "2", folder / name)
    with pytest.raises(ReleaseError, match="manifest does not list"):
        publisher(var).activate(release(var, 2), reason="x", unblessed=True)
    (release(var, 2) / "manifest.json").unlink()  # as somebody who makes the manifest too
    with pytest.raises(ReleaseError, match="stray entry"):
        publisher(var).activate(release(var, 2), reason="x", unblessed=True)


def _edit_graph(path: Path, edit: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../x")


def _foreign(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "evil"
    model.opset_import.add(domain="evil", version=1)


def _unknown(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Frobnicate"


def _newer(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def _renamed(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "other"


@pytest.mark.parametrize("edit", [_external, _foreign, _unknown, _newer, _renamed])
def test_a_graph_with_foreign_parts_is_refused_even_with_fresh_hashes(
    tmp_path: Path, edit: Callable[[onnx.ModelProto], None]
) -> None:
    write_synthetic_release(tmp_path / "release", version=1)
    _edit_graph(tmp_path / "release" / "repository" / "recall_mf" / "1" / "model.onnx", edit)
    with pytest.raises(ReleaseError):
        publisher(tmp_path / "var").activate(tmp_path / "release", reason="x", unblessed=True)
    assert not live_repository(tmp_path / "var").exists()


def test_too_little_room_is_refused_before_anything_is_placed(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher(var).activate(release(var, 1), reason="first")
    usage = shutil.disk_usage(var)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    with pytest.raises(PublishError, match="did not go live") as error:
        publisher(var).activate(release(var, 2), reason="x")
    assert error.value.found == "too little room"
    assert not (live_repository(var) / "rank" / "2").exists()


def test_two_publishers_one_is_refused_and_a_paused_one_is_fenced(var: Path) -> None:
    publisher(var).activate(release(var, 1), reason="first")
    publisher(var).activate(release(var, 2), reason="next")
    other = acquire(lease_file(var), "other", pid=1)
    with pytest.raises(PublishError, match="another publisher is at work"):
        publisher(var).activate(release(var, 3), reason="x")
    other.release()

    def overtaken(step: str) -> None:
        if step == "golden requests" or step.startswith("place ensembles"):
            publisher(var).rollback(reason="in between")

    with pytest.raises(PublishError, match="taken over"):
        publisher(var, after=overtaken).activate(release(var, 3), reason="slow")
    assert live(var) == "r000001"


def test_a_lease_of_the_dead_or_of_before_the_boot_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    first = acquire(path, "dead", pid=2**22 + 1)
    second = acquire(path, "next")
    assert second.epoch == first.epoch + 1
    with pytest.raises(PublishError, match="taken over"), first.held():
        raise AssertionError("ran without the lease")
    later = acquire(path, "after the lease ran out", clock=lambda: 1e12)
    with pytest.raises(PublishError, match="taken over"), second.held():
        raise AssertionError("ran without the lease")
    with later.held():
        pass


def test_separate_repositories_change_together(var: Path, tmp_path: Path) -> None:
    replicas = [Replica(live_repository(var)), Replica(tmp_path / "second" / "repository")]
    for version in (1, 2):
        publisher(var, replicas=replicas).activate(release(var, version), reason="x")
    assert {release_of(replica.repository) for replica in replicas} == {"r000002"}


def test_a_pointer_to_a_release_that_is_gone_is_refused_at_the_start(var: Path) -> None:
    publisher(var).activate(release(var, 1), reason="first")
    replace_pointer(pointer_file(var), Pointer(epoch=9, stable="r000077"))
    with pytest.raises(PublishError, match="not here"):
        prepare_start(var)


def test_every_change_is_in_the_audit_log_failures_too(var: Path) -> None:
    publisher(var).activate(release(var, 1), reason="first")
    with pytest.raises(ConchError):
        publisher(var, replicas=[Replica(live_repository(var), "127.0.0.1:1", load_seconds=1)]).activate(
            release(var, 2), reason="nobody is there"
        )
    publisher(var).activate(release(var, 2), reason="second")
    found = audit.records(audit.audit_file(var))
    assert [record["reason"] for record in found] == ["first", "nobody is there", "second"]
    assert found[1]["inputs"]["outcome"].startswith("failed")
    assert found[1]["before"] == found[1]["after"]
    assert (found[2]["before"]["stable"], found[2]["after"]["stable"]) == ("r000001", "r000002")
