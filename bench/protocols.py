"""Protocols: which data, what is learned from, what is masked, and who is asked."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import SettingsError
from core.settings import ROOT

FILE = ROOT / "bench" / "protocols.toml"


class Published(BaseModel):
    """A figure from a paper on the same split: cited, not measured here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    metrics: dict[str, float]


class Protocol(BaseModel):
    """One way to measure.

    Attributes:
        name: Key in protocols.toml.
        title: For people.
        source: ``data.source`` of the settings; ``files`` needs ``--events``.
        config: Settings files over the default one.
        fit: Splits that final models learn from.
        mask: Splits whose items are no answer.
        users: Users of the headline: warm ones, or all.
        choose_by: Metric on valid that chooses a peer's settings.
        choose_users: Most users asked on valid, a random choice where there are more.
        liked_from: Values from here up count as liked.
        published: Figures from papers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    source: str
    config: tuple[str, ...] = ()
    fit: tuple[str, ...] = ("train", "valid")
    mask: tuple[str, ...] = ("train", "valid")
    users: Literal["warm", "all"] = "warm"
    choose_by: str = "ndcg@10"
    choose_users: int = 10_000
    liked_from: float | None = None
    published: tuple[Published, ...] = ()


def read_protocol(name: str, file: Path = FILE) -> Protocol:
    """The named protocol.

    Raises:
        SettingsError: No such protocol, or a key that does not exist.
    """
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    if name not in tables:
        raise SettingsError("unknown protocol", where="--protocol", expected=" | ".join(tables), found=name)
    try:
        return Protocol(name=name, **tables[name])
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(
            "protocol cannot be read",
            where=f"{file.name} [{name}] {'.'.join(str(part) for part in first['loc'])}",
            found=first["msg"],
        ) from None
