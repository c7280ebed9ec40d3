"""What one setting may be during a search: an integer range, a float range, or a few choices.

Written as text on the command line and in space files alike:

    int:8:128          int:8:128:log       int:2:10:step=2
    float:0:0.7        float:1e-4:1e-1:log float:0:1:step=0.1
    choice:a,b,c       choice:[[64, 32], [128, 64]]
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from core.errors import SettingsError

GRAMMAR = "int:LOW:HIGH, float:LOW:HIGH (then :log or :step=S), or choice:A,B,C"


@dataclass(frozen=True)
class NumberRange:
    """All numbers from ``low`` to ``high``, both included.

    Attributes:
        low: Smallest.
        high: Largest.
        whole: Only integers.
        log: Even in the logarithm.
        step: Distance of neighbours; None for every number (of its kind).
    """

    low: float
    high: float
    whole: bool
    log: bool = False
    step: float | None = None

    def distribution(self) -> BaseDistribution:
        """The range as Optuna knows it."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def grid(self, points: int) -> list[Any]:
        """Values for a grid search, ascending: all of a stepped range, else at most ``points`` even ones."""
        if self.step is not None:
            values = self.low + self.step * np.arange(math.floor((self.high - self.low) / self.step + 1e-9) + 1)
        elif self.log:
            values = np.geomspace(self.low, self.high, points)
        else:
            values = np.linspace(self.low, self.high, points)
        values = np.clip(values, self.low, self.high)  # geomspace may miss its ends by a rounding error
        return sorted({round(float(value)) for value in values}) if self.whole else [float(value) for value in values]

    def ends(self) -> list[Any]:
        """The extreme values."""
        return [int(self.low), int(self.high)] if self.whole else [self.low, self.high]

    def decode(self, value: Any) -> Any:
        """A trial's value as the setting takes it."""
        return int(value) if self.whole else float(value)

    def encode(self, value: Any) -> Any | None:
        """A setting's value as a trial takes it; None where it lies outside the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        if self.step is not None and abs((value - self.low) / self.step % 1) > 1e-9:
            return None
        return self.decode(value)

    def __str__(self) -> str:
        ends = ":".join(f"{end}" for end in self.ends())
        step = "" if self.step is None else f":step={int(self.step) if self.whole else self.step}"
        return f"{'int' if self.whole else 'float'}:{ends}{':log' if self.log else ''}{step}"


@dataclass(frozen=True)
class Choices:
    """A few values, in no order.

    Attributes:
        values: Plain TOML values.
    """

    values: tuple[Any, ...]

    def distribution(self) -> BaseDistribution:
        """The choices as Optuna knows them; lists travel as JSON text."""
        return CategoricalDistribution([_flat(value) for value in self.values])

    def grid(self, points: int) -> list[Any]:
        """All of them, whatever ``points``."""
        return [_flat(value) for value in self.values]

    def ends(self) -> list[Any]:
        """All of them."""
        return list(self.values)

    def decode(self, value: Any) -> Any:
        """A trial's value as the setting takes it."""
        return next(known for known in self.values if _flat(known) == value)

    def encode(self, value: Any) -> Any | None:
        """A setting's value as a trial takes it; None where it is not among the choices."""
        plain = list(value) if isinstance(value, tuple) else value
        return next((_flat(known) for known in self.values if known == plain), None)

    def __str__(self) -> str:
        return f"choice:{json.dumps(list(self.values))}"


Range = NumberRange | Choices


def parse_range(key: str, text: str) -> Range:
    """Reads the grammar above.

    Args:
        key: The setting, for messages.
        text: For example ``int:8:128:log``.

    Raises:
        SettingsError: Text that is no range, or one without two values.
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "choice":
        return _choices(key, rest)
    if kind not in ("int", "float"):
        raise _unreadable(key, text)
    number = int if kind == "int" else float
    try:
        low, high, *options = rest.split(":")
        ends = number(low), number(high)
    except ValueError:
        raise _unreadable(key, text) from None
    step = None
    for option in options:
        if option.startswith("step="):
            step = _step(key, text, option.removeprefix("step="), whole=kind == "int")
        elif option != "log":
            raise _unreadable(key, text)
    return _checked(key, text, NumberRange(*ends, whole=kind == "int", log="log" in options, step=step))


def _checked(key: str, text: str, found: NumberRange) -> NumberRange:
    wrong = None
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        wrong = "finite ends"
    elif found.low >= found.high:
        wrong = "LOW below HIGH"
    elif found.log and found.low <= 0:
        wrong = "LOW above 0 on a logarithmic scale"
    elif found.log and found.step is not None:
        wrong = "log or step, not both"
    elif found.step is not None and not 0 < found.step <= found.high - found.low:
        wrong = "a step above 0 that fits into the range"
    if wrong:
        raise SettingsError(f"no usable range for {key}", where=key, expected=wrong, found=text)
    return found


def _step(key: str, text: str, raw: str, *, whole: bool) -> float:
    try:
        return int(raw) if whole else float(raw)
    except ValueError:
        raise _unreadable(key, text) from None


def _choices(key: str, rest: str) -> Choices:
    if rest.strip().startswith("["):
        try:
            values = tomllib.loads(f"values = {rest}")["values"]
        except tomllib.TOMLDecodeError:
            raise _unreadable(key, f"choice:{rest}") from None
    else:
        values = [_plain(part.strip()) for part in rest.split(",") if part.strip()]
    return choices_of(key, values)


def choices_of(key: str, values: list[Any]) -> Choices:
    """Choices from plain values. Raises SettingsError for fewer than two distinct ones."""
    if len({json.dumps(value, default=str) for value in values}) != len(values) or len(values) < 2:
        raise SettingsError(
            f"no usable choice for {key}", where=key, expected="two or more distinct values", found=str(values)
        )
    return Choices(tuple(values))


def _plain(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _flat(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _unreadable(key: str, text: str) -> SettingsError:
    return SettingsError(f"cannot read the range of {key}", where=key, expected=GRAMMAR, found=text)
