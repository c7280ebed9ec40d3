"""The pointer: which release answers whom. The gateway re-reads it, the publisher replaces it in one step.

``paths.var``/serving.json. Its epoch only grows: a reader never goes back to an older one, whatever it finds.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.artifacts import replace_file
from core.ensembles import release_model
from core.errors import PublishError
from core.tensors import ENSEMBLE

POINTER_FILE = "serving.json"
BUCKETS = 10_000
"""Users fall into this many buckets: a canary's weight has steps of 0.01 %."""

ReleaseId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Side = Literal["stable", "canary"]


class Pointer(BaseModel):
    """``serving.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epoch: int = Field(ge=1)
    """Grows with every change."""
    stable: ReleaseId
    """Answers everybody who is not in the canary."""
    canary: ReleaseId | None = None
    weight: float = Field(0.0, ge=0, le=1)
    """Share of users whom the canary answers."""
    salt: str = Field("", max_length=64)
    """Deals users to buckets; a new one with every canary, kept while its weight grows: who is in stays in."""
    shadow: ReleaseId | None = None
    """Gets copies of requests; nobody sees its answers."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.canary is None and self.weight:
            raise ValueError("weight without a canary")
        if self.canary == self.stable:
            raise ValueError("canary and stable are the same release")
        return self

    def side_of(self, user: str) -> Side:
        """Who answers a user: always the same under one salt, and for good once the weight has reached them."""
        if self.canary is not None and bucket_of(user, self.salt) < round(self.weight * BUCKETS):
            return "canary"
        return "stable"

    def release_of(self, user: str) -> str:
        """The release that answers a user."""
        return self.canary if self.canary is not None and self.side_of(user) == "canary" else self.stable

    @property
    def releases(self) -> tuple[str, ...]:
        """Every release that must be loaded: stable, canary, shadow, each once."""
        return tuple(dict.fromkeys(name for name in (self.stable, self.canary, self.shadow) if name is not None))


def bucket_of(user: str, salt: str) -> int:
    """Bucket of a user, 0 to ``BUCKETS`` - 1, even over users and independent between salts."""
    digest = hashlib.blake2b(f"{salt}\0{user}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def model_of(release_id: str, alias: str = ENSEMBLE.name) -> str:
    """Model to ask on Triton for a release of the pointer."""
    return release_model(alias, release_id)


def pointer_file(var: Path) -> Path:
    """Where the pointer lies; ``var`` is ``paths.var``."""
    return var / POINTER_FILE


def read_pointer(path: Path) -> Pointer | None:
    """The pointer, None where there is none yet. Raises PublishError where the file is no pointer."""
    try:
        return Pointer.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PublishError(
            "serving.json cannot be read", where=str(path), found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            next_step="`conch activate` writes it anew",
        ) from None  # fmt: skip


def replace_pointer(path: Path, pointer: Pointer) -> None:
    """Replaces the pointer durably and in one step. Only the holder of the lease may call this (``serving.lease``).

    Raises:
        PublishError: The epoch is not above that of the file.
    """
    current = read_pointer(path)
    if current is not None and pointer.epoch <= current.epoch:
        raise PublishError(
            "the pointer has moved on", where=str(path), expected=f"an epoch above {current.epoch}",
            found=str(pointer.epoch), next_step="look at `conch status` and decide anew",
        )  # fmt: skip
    replace_file(path, (json.dumps(pointer.model_dump(mode="json"), indent=1) + "\n").encode())


class PointerReader:
    """Reads the pointer for every request at the price of one ``stat`` (2 µs): ``reader.current()``.

    A file that is missing, broken or older than the last one seen leaves the last one standing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._pointer: Pointer | None = None

    def current(self) -> Pointer | None:
        """The newest pointer seen; None before there was any."""
        try:
            status = os.stat(self._path)
        except OSError:
            return self._pointer
        mark = (status.st_ino, status.st_mtime_ns, status.st_size)
        if mark == self._seen:
            return self._pointer
        try:
            found = read_pointer(self._path)
        except (PublishError, OSError):
            return self._pointer
        self._seen = mark
        if found is not None and (self._pointer is None or found.epoch > self._pointer.epoch):
            self._pointer = found
        return self._pointer
