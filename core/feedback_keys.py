"""The two secrets of the feedback loop, as files that only their owner reads.

``<folder>/pseudonym.key`` (one line) and ``<folder>/token.keys`` (a line per key, newest first), hex. Losing the first
makes new users of everybody; the second may be changed: put a new line on top and drop old ones when their tokens
have run out.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from core.artifacts import sync_folder
from core.errors import FeedbackError
from core.feedback_tokens import TokenKeys

PSEUDONYM_FILE = "pseudonym.key"
TOKEN_FILE = "token.keys"
KEY_BYTES = 32


@dataclass(frozen=True)
class FeedbackKeys:
    """Both secrets. ``repr`` does not show them."""

    pseudonym: bytes
    tokens: TokenKeys

    def __repr__(self) -> str:
        return f"FeedbackKeys({len(self.tokens.keys)} token keys)"


def load_keys(folder: Path) -> FeedbackKeys:
    """Reads both keys; makes random ones where there are none yet, for the owner alone.

    Two processes that start at once end with the same keys.

    Args:
        folder: ``keys_folder(paths.var)``, or a mounted secret.

    Raises:
        FeedbackError: A key that is no hex, too short, or readable by others.
    """
    pseudonyms = _read_or_make(folder / PSEUDONYM_FILE)
    if len(pseudonyms) != 1:
        raise FeedbackError(
            "more than one pseudonym key", where=str(folder / PSEUDONYM_FILE), expected="one line",
            found=f"{len(pseudonyms)} lines",
        )  # fmt: skip
    return FeedbackKeys(pseudonyms[0], TokenKeys(_read_or_make(folder / TOKEN_FILE)))


def keys_folder(var: Path) -> Path:
    """Where keys lie by default; ``var`` is ``paths.var``."""
    return var / "keys"


def _read_or_make(path: Path) -> tuple[bytes, ...]:
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o007:
        raise FeedbackError(
            "everybody can read this key", where=str(path), expected="mode 600",
            found=f"{path.stat().st_mode & 0o777:o}", next_step=f"chmod 600 {path}",
        )  # fmt: skip
    try:
        keys = tuple(bytes.fromhex(line) for line in path.read_text(encoding="ascii").split())
    except (ValueError, UnicodeDecodeError):
        keys = ()
    if not keys or any(len(key) < KEY_BYTES for key in keys):
        raise FeedbackError(
            "no usable key", where=str(path), expected=f"lines of at least {KEY_BYTES} bytes in hex",
            found="something else", next_step=f"restore the file; without it, `openssl rand -hex 32 > {path}`",
        )  # fmt: skip
    return keys


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(KEY_BYTES) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(temporary, path)  # fails where another process was first: its key stands
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_folder(path.parent)
