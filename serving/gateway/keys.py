"""API keys, kept as hashes, and how often each may ask."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import SettingsError

SCOPES = ("recommend", "events", "operator")
MOST_BUCKETS = 10_000


@dataclass(frozen=True)
class ApiKey:
    """One line of the key file: ``name sha256 scope,scope``.

    Keys are 32 random bytes, so a plain hash is enough: there is nothing to guess.
    """

    name: str
    digest: str
    scopes: frozenset[str]


class ApiKeys:
    """The keys of a gateway."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = keys

    def find(self, given: str) -> ApiKey | None:
        """The key that ``given`` is. Compares with all of them, each in constant time."""
        digest = digest_of(given)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def digest_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(path: Path) -> ApiKeys:
    """Reads a key file; none at all is an empty one.

    Raises:
        SettingsError: A line that is no key, or a file that others may write.
    """
    if not path.exists():
        return ApiKeys(())
    if path.stat().st_mode & 0o022:
        raise SettingsError("others can write this key file", where=str(path), next_step=f"chmod 600 {path}")
    keys = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split()
        scopes = frozenset(parts[2].split(",")) if len(parts) == 3 else frozenset()
        if len(parts) != 3 or len(parts[1]) != 64 or not scopes or scopes - set(SCOPES):
            raise SettingsError(
                "not a key", where=f"{path}, line {number}", expected=f"name, sha256, some of {','.join(SCOPES)}"
            )
        keys.append(ApiKey(parts[0], parts[1].lower(), scopes))
    return ApiKeys(tuple(keys))


def add_key(path: Path, name: str, scopes: tuple[str, ...]) -> str:
    """Makes a key, adds its hash to the file and returns the key: it is shown once and kept nowhere.

    Raises:
        SettingsError: A name with spaces, or an unknown scope.
    """
    if not name or any(letter.isspace() for letter in name) or not scopes or set(scopes) - set(SCOPES):
        raise SettingsError("no such key", expected=f"a name without spaces and some of {', '.join(SCOPES)}")
    key = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(f"{name} {digest_of(key)} {','.join(scopes)}\n")
        stream.flush()
        os.fsync(stream.fileno())
    return key


class RateLimit:
    """Token buckets, one per caller; the longest unused ones are forgotten.

    Args:
        rate: Tokens a second.
        burst: Tokens at most.
        clock: Monotonic seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """Takes a token: 0; or how long until there is one."""
        now = self._clock()
        tokens, last = self._buckets.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - last) * self._rate)
        taken = tokens >= 1
        self._buckets[caller] = (tokens - 1 if taken else tokens, now)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - tokens) / self._rate
