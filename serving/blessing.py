"""Blessings: the gate's signed word that one very release may go live. The publisher refuses what carries none.

``paths.var``/blessings/<release id>.json, signed with Ed25519 by ``paths.var``/keys/blessing.key (mode 600). The
publisher needs only ``blessing.pub`` beside it: one public key a line, hex; several while keys change.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from core.artifacts import replace_file, sync_folder
from core.errors import BlessingError
from serving.pointer import ReleaseId

PRIVATE_FILE, PUBLIC_FILE = "blessing.key", "blessing.pub"
Sha256 = Field(pattern=r"^[0-9a-f]{64}$")


class Blessing(BaseModel):
    """``<release id>.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    release_id: ReleaseId
    manifest_sha256: str = Sha256
    """Of the release artefact's manifest, which lists the sha256 of every file."""
    report_sha256: str = Sha256
    """Of the gate's report."""
    created: AwareDatetime
    expires: AwareDatetime
    key: str = Field("", pattern=r"^[0-9a-f]{0,16}$")
    """Which key signed: the start of the public key's sha256."""
    signature: str = Field("", pattern=r"^[0-9a-f]*$")
    """Ed25519 over everything else, see :meth:`signed_bytes`."""

    def signed_bytes(self) -> bytes:
        """What is signed: canonical JSON of all fields but the signature."""
        fields = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def blessing_file(var: Path, release_id: str) -> Path:
    """Where the blessing of a release lies; ``var`` is ``paths.var``."""
    return var / "blessings" / f"{release_id}.json"


def write_blessing(var: Path, blessing: Blessing) -> Path:
    """Stores a signed blessing where the publisher looks for it."""
    path = blessing_file(var, blessing.release_id)
    replace_file(path, (json.dumps(blessing.model_dump(mode="json"), indent=1) + "\n").encode())
    return path


def read_blessing(path: Path) -> Blessing:
    """Reads a blessing without judging it. Raises BlessingError where there is none or it is no blessing."""
    try:
        return Blessing.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BlessingError(
            "this release carries no blessing", where=str(path), next_step="conch gate, or activate with --unblessed"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BlessingError(
            "blessing cannot be read", where=str(path), found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None


def load_private_key(folder: Path) -> Ed25519PrivateKey:
    """The gate's key; made, with its public half, where there is none yet.

    Raises:
        BlessingError: A file that others may read, or that holds no key.
    """
    path = folder / PRIVATE_FILE
    if not path.exists():
        _make_key(folder)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise BlessingError(
            "others can read the gate's key", where=str(path), expected="mode 600", found=f"{mode:o}",
            next_step=f"make a new key: remove {path}, and its line in {PUBLIC_FILE}",
        )  # fmt: skip
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii").strip()))
    except ValueError:
        raise BlessingError("no usable key", where=str(path), expected="32 bytes in hex") from None


def load_public_keys(folder: Path) -> tuple[Ed25519PublicKey, ...]:
    """Keys whose signatures count. Raises BlessingError where there is none or a line is no key."""
    path = folder / PUBLIC_FILE
    try:
        lines = path.read_text(encoding="ascii").split()
        keys = tuple(Ed25519PublicKey.from_public_bytes(bytes.fromhex(line)) for line in lines)
    except FileNotFoundError:
        keys = ()
    except ValueError:
        raise BlessingError("no usable public key", where=str(path), expected="32 bytes in hex a line") from None
    if not keys:
        raise BlessingError("no key of the gate is known", where=str(path), next_step="conch gate makes one")
    return keys


def sign(blessing: Blessing, key: Ed25519PrivateKey) -> Blessing:
    """The blessing with key id and signature."""
    named = blessing.model_copy(update={"key": key_id(key.public_key())})
    return named.model_copy(update={"signature": key.sign(named.signed_bytes()).hex()})


def verify(
    blessing: Blessing, keys: tuple[Ed25519PublicKey, ...], release_id: str, manifest_sha256: str, now: datetime
) -> None:
    """Checks that a blessing is genuine, in force, and for this very release.

    Args:
        blessing: As read.
        keys: Whose signatures count.
        release_id: What is to go live.
        manifest_sha256: Of its manifest, just computed.
        now: With time zone.

    Raises:
        BlessingError: It is not.
    """
    key = next((key for key in keys if key_id(key) == blessing.key), None)
    try:
        if key is None:
            raise InvalidSignature
        key.verify(bytes.fromhex(blessing.signature), blessing.signed_bytes())
    except (InvalidSignature, ValueError):
        raise BlessingError(
            "blessing is not signed by the gate", where=release_id, found=f"key {blessing.key}"
        ) from None
    if (blessing.release_id, blessing.manifest_sha256) != (release_id, manifest_sha256):
        raise BlessingError(
            "blessing is for another release", where=release_id, expected=f"{release_id}, sha256 {manifest_sha256}",
            found=f"{blessing.release_id}, sha256 {blessing.manifest_sha256}", next_step="conch gate",
        )  # fmt: skip
    if not blessing.created <= now < blessing.expires:
        raise BlessingError(
            "blessing is not in force", where=release_id, expected=f"{blessing.created} to {blessing.expires}",
            found=str(now), next_step="conch gate",
        )  # fmt: skip


def key_id(key: Ed25519PublicKey) -> str:
    """Short name of a public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _make_key(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    try:
        handle = os.open(folder / PRIVATE_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # another process was first: its key stands
    public = folder / PUBLIC_FILE
    known = public.read_bytes() if public.exists() else b""
    replace_file(public, known + key.public_key().public_bytes_raw().hex().encode() + b"\n")
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(key.private_bytes_raw().hex() + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(folder)
