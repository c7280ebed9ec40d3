from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.errors import BlessingError
from serving.blessing import (
    Blessing,
    blessing_file,
    load_private_key,
    load_public_keys,
    read_blessing,
    sign,
    verify,
    write_blessing,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SHA = "ab" * 32


def blessing(**changes: Any) -> Blessing:
    fields = {"release_id": "r1", "manifest_sha256": SHA, "report_sha256": "cd" * 32, "created": NOW}
    return Blessing(**{**fields, "expires": NOW + timedelta(days=7), **changes})


def test_a_signed_blessing_survives_the_disk_and_is_good(tmp_path: Path) -> None:
    key = load_private_key(tmp_path / "keys")
    assert (tmp_path / "keys" / "blessing.key").stat().st_mode & 0o777 == 0o600
    write_blessing(tmp_path, sign(blessing(), key))
    found = read_blessing(blessing_file(tmp_path, "r1"))
    verify(found, load_public_keys(tmp_path / "keys"), "r1", SHA, NOW)


@pytest.mark.parametrize(
    "change", [{"manifest_sha256": "ef" * 32}, {"release_id": "r2"}, {"expires": NOW + timedelta(days=900)},
               {"signature": ""}, {"signature": "00" * 64}, {"key": "0" * 16}]
)  # fmt: skip
def test_an_edited_or_unsigned_blessing_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    key = load_private_key(tmp_path)
    forged = sign(blessing(), key).model_copy(update=change)
    with pytest.raises(BlessingError, match="not signed by the gate"):
        verify(forged, load_public_keys(tmp_path), forged.release_id, forged.manifest_sha256, NOW)


def test_a_foreign_key_does_not_bless(tmp_path: Path) -> None:
    load_private_key(tmp_path)
    foreign = sign(blessing(), Ed25519PrivateKey.generate())
    with pytest.raises(BlessingError, match="not signed by the gate"):
        verify(foreign, load_public_keys(tmp_path), "r1", SHA, NOW)


@pytest.mark.parametrize(("release", "sha"), [("r2", SHA), ("r1", "00" * 32)])
def test_a_blessing_for_another_release_is_refused(tmp_path: Path, release: str, sha: str) -> None:
    good = sign(blessing(), load_private_key(tmp_path))
    with pytest.raises(BlessingError, match="another release"):
        verify(good, load_public_keys(tmp_path), release, sha, NOW)


@pytest.mark.parametrize("days", [-1, 7, 8])
def test_a_blessing_counts_within_its_time_only(tmp_path: Path, days: int) -> None:
    good = sign(blessing(), load_private_key(tmp_path))
    with pytest.raises(BlessingError, match="not in force"):
        verify(good, load_public_keys(tmp_path), "r1", SHA, NOW + timedelta(days=days))


def test_a_key_that_others_read_is_refused(tmp_path: Path) -> None:
    load_private_key(tmp_path)
    (tmp_path / "blessing.key").chmod(0o644)
    with pytest.raises(BlessingError, match="others can read"):
        load_private_key(tmp_path)


def test_no_key_and_no_blessing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BlessingError, match="no key of the gate"):
        load_public_keys(tmp_path)
    with pytest.raises(BlessingError, match="no blessing"):
        read_blessing(blessing_file(tmp_path, "r1"))
