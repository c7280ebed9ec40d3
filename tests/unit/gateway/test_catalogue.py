"""Which release answers where there is no pointer."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import activate
from serving.activate import install_release
from serving.gateway.catalogue import Views
from serving.publish import Publisher
from serving.release import live_repository
from tests.sealed_release import seal_release
from tests.synthetic_release import Shape


def test_live_release_follows_the_alias(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    views = Views(repository)
    assert views.live() is None
    for version in (1, 2, 1):
        install_release(seal_release(tmp_path / str(version), version).path, repository)
        live = views.live()
        assert live is not None
        assert live.info.release_id == f"r{version:06d}"
    views.close()


def test_live_release_reads_the_config_once_while_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    install_release(seal_release(tmp_path / "var", 1).path, repository)
    reads: list[Path] = []
    whole = activate.read_config
    monkeypatch.setattr(activate, "read_config", lambda folder: reads.append(folder) or whole(folder))
    views = Views(repository)
    assert views.live() is views.live() is not None
    assert len(reads) == 1
    views.close()


def test_release_of_another_shape_is_found_under_its_longer_names(tmp_path: Path) -> None:
    releases = [seal_release(tmp_path, 1).path, seal_release(tmp_path, 2, shape=Shape(returned=25)).path]
    for path in releases:
        Publisher(tmp_path, "test").activate(path, reason="next")
    repository = live_repository(tmp_path)
    assert list(repository.glob("respond.????????")), "the second one's leaf has a name of its own"
    views = Views(repository)
    for release_id in ("r000001", "r000002"):
        view = views.get(release_id)
        assert view is not None, release_id
        assert view.info.release_id == release_id
        assert view.popular(3, ())
    live = views.live()
    assert live is not None
    assert live.info.release_id == "r000002"
    views.close()
