"""The search space: which settings a search may change, and how far."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from pydantic import BaseModel

from core.errors import SettingsError
from core.settings import Settings, change_settings, unknown_key, value_of
from training.tuning.default_spaces import default_ranges
from training.tuning.ranges import Choices, NumberRange, Range, choices_of, parse_range

FIXED_SECTIONS = ("paths", "data", "export", "serving", "evaluate", "tune")
"""Sections that say where, on what and how is searched: no trial may change those."""


@dataclass(frozen=True)
class SearchSpace:
    """Ranges by setting, checked against the settings they would change.

    Attributes:
        ranges: ``section.key`` to its range, sorted by key.
    """

    ranges: Mapping[str, Range]

    def distributions(self) -> dict[str, BaseDistribution]:
        """As Optuna knows it."""
        return {key: found.distribution() for key, found in self.ranges.items()}

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's parameters as settings."""
        return {key: self.ranges[key].decode(value) for key, value in params.items()}

    def encode(self, settings: Settings) -> dict[str, Any] | None:
        """The present settings as a trial's parameters; None where one of them lies outside its range."""
        params = {key: found.encode(value_of(settings, key)) for key, found in self.ranges.items()}
        return None if any(value is None for value in params.values()) else params

    def as_text(self) -> dict[str, str]:
        """Each range in the grammar of ``ranges``: what binds a study to its space."""
        return {key: str(found) for key, found in self.ranges.items()}


def search_space(
    model: str, settings: Settings, *, file: Path | None = None, searches: Sequence[str] = ()
) -> SearchSpace:
    """The space that a command line asks for: ``file`` and ``searches`` together, else the model's default.

    Args:
        model: Decides the default.
        settings: The settings that the search starts from.
        file: TOML with a range per key, see :func:`read_space`.
        searches: ``section.key=RANGE``, each over what the file says.

    Raises:
        SettingsError: An unknown key (names the closest one), or a range that its setting does not take.
    """
    ranges = read_space(file) if file else {}
    for text in searches:
        key, separator, told = text.partition("=")
        if not separator:
            raise SettingsError(
                "cannot read --search", where=text, expected="SECTION.KEY=RANGE, for example mf.dimension=int:8:128:log"
            )
        ranges[key.strip()] = parse_range(key.strip(), told)
    if not ranges:
        ranges = default_ranges(model, settings)
    for key, found in ranges.items():
        _check(key, found, settings)
    return SearchSpace(dict(sorted(ranges.items())))


def read_space(file: Path) -> dict[str, Range]:
    """Reads a space file: tables of settings, each key a range as text or a list of choices.

    ::

        [mf]
        dimension = "int:8:128:log"
        solver = ["numba", "torch"]

    Raises:
        SettingsError: No such file, no TOML, or a value that is no range.
    """
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError("cannot read the space file", where=str(file), found=str(error.strerror)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("the space file is not valid TOML", where=str(file), found=str(error)) from None
    ranges = dict(_ranges_in(tree, ""))
    if not ranges:
        raise SettingsError("the space file names no setting", where=str(file), expected="[section] and key = RANGE")
    return ranges


def _ranges_in(tree: dict[str, Any], prefix: str) -> list[tuple[str, Range]]:
    found: list[tuple[str, Range]] = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            found += _ranges_in(value, f"{key}.")
        else:
            found.append((key, choices_of(key, value) if isinstance(value, list) else parse_range(key, str(value))))
    return found


def _check(key: str, found: Range, settings: Settings) -> None:
    now = value_of(settings, key)
    if isinstance(now, BaseModel):
        raise unknown_key(f"{key}.")
    if key.split(".")[0] in FIXED_SECTIONS:
        raise SettingsError(
            f"{key} is not for searching", where=key, expected=f"a section other than {', '.join(FIXED_SECTIONS)}"
        )
    if isinstance(found, NumberRange):
        if isinstance(now, bool) or not isinstance(now, int | float):
            raise SettingsError(
                f"{key} is not a number", where=key, expected="choice:A,B,...", found=f"{found} for {json.dumps(now)}"
            )
        if isinstance(now, int) and not found.whole:
            raise SettingsError(f"{key} is a whole number", where=key, expected="int:LOW:HIGH", found=str(found))
    for value in found.ends():
        try:
            change_settings(settings, {key: value})
        except SettingsError as error:
            raise SettingsError(
                f"the range of {key} goes beyond what the setting takes",
                where=key,
                expected=error.expected,
                found=f"{json.dumps(value)} in {found}",
            ) from None


__all__ = ["Choices", "NumberRange", "Range", "SearchSpace", "read_space", "search_space"]
