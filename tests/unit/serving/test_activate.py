from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import ReleaseError
from core.settings import ROOT
from serving.activate import install_release, live_release
from serving.lint import lint_repository, pinned_version, read_config
from tests.synthetic_release import Shape, write_synthetic_release


class CrashError(Exception):
    """Stands for the power going off."""


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Releases 1 to 3 of one shape, and 4 with longer lists."""
    folder = tmp_path_factory.mktemp("releases")
    for version in (1, 2, 3):
        write_synthetic_release(folder / str(version), version=version, seed=version)
    write_synthetic_release(folder / "4", version=4, shape=Shape(returned=25))
    return {version: folder / str(version) for version in (1, 2, 3, 4)}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "var" / "repository"


def live(repository: Path) -> str | None:
    """The release that a start would serve, after the checks that a start makes."""
    if not repository.exists():
        return None
    lint_repository(repository)
    info = live_release(repository)
    assert info is not None
    for name in ("context", "respond"):
        state = json.loads((repository / name / str(info.version) / "state.json").read_bytes())
        assert state["release_id"] == info.release_id
    return info.release_id


def versions(repository: Path, model: str) -> list[str]:
    return sorted(path.name for path in (repository / model).iterdir() if path.is_dir())


def test_first_release_becomes_live(releases: dict[int, Path], repository: Path) -> None:
    assert live_release(repository) is None
    install_release(releases[1], repository)
    assert live(repository) == "r000001"


def test_next_release_flips_and_keeps_the_one_before(releases: dict[int, Path], repository: Path) -> None:
    install_release(releases[1], repository)
    install_release(releases[2], repository)
    assert live(repository) == "r000002"
    for model in ("recall_mf", "context", "recommend"):
        assert versions(repository, model) == ["1", "2"]
    assert list(read_config(repository / "rank").version_policy.specific.versions) == [1, 2]


def test_a_release_that_serves_other_similar_ones_replaces_the_whole_repository(
    releases: dict[int, Path], repository: Path, tmp_path: Path
) -> None:
    write_synthetic_release(tmp_path / "5", version=5, extras=("similar_items",))
    install_release(releases[1], repository)
    assert (repository / "similar_users").is_dir()
    install_release(tmp_path / "5", repository)
    assert live(repository) == "r000005"
    assert not (repository / "similar_users").exists()
    assert not (repository / "name_users").exists()
    assert versions(repository, "nearest_items") == ["5"]


def test_all_ensembles_are_pinned_to_the_live_release(releases: dict[int, Path], repository: Path) -> None:
    install_release(releases[1], repository)
    install_release(releases[2], repository)
    for ensemble in ("similar_items", "similar_users", "recommend"):
        folder = repository / ensemble
        assert pinned_version(read_config(folder), folder) == 2
        assert list(read_config(folder).version_policy.specific.versions) == [2]


def test_only_two_releases_are_kept(releases: dict[int, Path], repository: Path) -> None:
    for version in (1, 2, 3):
        install_release(releases[version], repository)
    assert live(repository) == "r000003"
    assert versions(repository, "rank") == ["2", "3"]


def test_installing_the_release_before_is_the_way_back(releases: dict[int, Path], repository: Path) -> None:
    for version in (1, 2, 1):
        install_release(releases[version], repository)
    assert live(repository) == "r000001"
    assert versions(repository, "rank") == ["1", "2"]


def test_installing_the_live_release_again_changes_nothing(releases: dict[int, Path], repository: Path) -> None:
    install_release(releases[1], repository)
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*") if path.suffix in (".onnx", ".sqlite")}
    install_release(releases[1], repository)
    assert live(repository) == "r000001"
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_release_of_another_shape_replaces_the_repository(releases: dict[int, Path], repository: Path) -> None:
    install_release(releases[1], repository)
    install_release(releases[4], repository)
    assert live(repository) == "r000004"
    assert versions(repository, "rank") == ["4"]


def test_other_content_under_the_live_version_is_refused(
    releases: dict[int, Path], repository: Path, tmp_path: Path
) -> None:
    install_release(releases[1], repository)
    write_synthetic_release(tmp_path / "other", version=1, seed=9)
    with pytest.raises(ReleaseError, match="live with other content"):
        install_release(tmp_path / "other", repository)
    assert live(repository) == "r000001"


def test_broken_release_never_reaches_the_repository(
    releases: dict[int, Path], repository: Path, tmp_path: Path
) -> None:
    install_release(releases[1], repository)
    broken = Path(shutil.copytree(releases[2], tmp_path / "broken"))
    (broken / "repository" / "rank" / "2" / "model.onnx").unlink()
    with pytest.raises(ReleaseError, match="files of the version"):
        install_release(broken, repository)
    assert versions(repository, "rank") == ["1"]


@pytest.mark.parametrize(("before", "new"), [((), 1), ((1,), 2), ((1, 2), 3), ((1, 2), 1), ((1,), 4)])
def test_a_crash_at_any_step_leaves_the_old_or_the_new_release(
    releases: dict[int, Path], tmp_path: Path, before: tuple[int, ...], new: int
) -> None:
    prepared = tmp_path / "prepared" / "repository"
    for version in before:
        install_release(releases[version], prepared)
    allowed = {f"r{before[-1]:06d}" if before else None, f"r{new:06d}"}
    outcomes: list[str | None] = []
    finished = False
    while not finished:
        folder = tmp_path / str(len(outcomes))
        repository = folder / "repository"
        shutil.copytree(prepared.parent, folder) if before else folder.mkdir()
        steps_left = len(outcomes)

        def crash(step: str) -> None:
            nonlocal steps_left
            steps_left -= 1
            if steps_left < 0:
                raise CrashError(step)

        try:
            install_release(releases[new], repository, crash)
            finished = True
        except CrashError:
            outcomes.append(live(repository))
        if len(outcomes) % 5 == 1:  # the rest of the job is the same after every step
            install_release(releases[new], repository)
            assert live(repository) == f"r{new:06d}"
    assert len(outcomes) >= 2
    assert set(outcomes) <= allowed
    assert outcomes[-1] == f"r{new:06d}"


def test_a_killed_installer_leaves_a_repository_that_serves(releases: dict[int, Path], repository: Path) -> None:
    install_release(releases[1], repository)
    code = (
        "import os, signal, sys; from pathlib import Path; from serving.activate import install_release\n"
        "die = lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == 'config of rank' else None\n"
        "install_release(Path(sys.argv[1]), Path(sys.argv[2]), die)"
    )
    command = [sys.executable, "-c", code, str(releases[2]), str(repository)]
    assert subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == -9
    assert live(repository) == "r000001"
    install_release(releases[2], repository)
    assert live(repository) == "r000002"


def test_ensemble_is_pinned_to_the_live_version(releases: dict[int, Path], repository: Path) -> None:
    install_release(releases[1], repository)
    install_release(releases[3], repository)
    assert pinned_version(read_config(repository / "recommend"), repository) == 3
