"""How long-running work tells where it is, without knowing about terminals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One running task."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Moves on by ``steps``; ``note`` is a short figure such as the loss."""
        ...


class Progress(Protocol):
    """Where bars are shown."""

    def bar(self, label: str, total: int) -> AbstractContextManager[Bar]:
        """A context manager that yields a :class:`Bar` of ``total`` steps."""
        ...

    def say(self, line: str) -> None:
        """One line for the reader."""
        ...

    def record(self, curve: str, step: int, value: float) -> None:
        """One point of a learning curve; ``curve`` names model and figure, such as ``mf loss``."""
        ...


class _SilentBar:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


class Silent:
    """Shows nothing: the default for libraries and tests."""

    @contextmanager
    def _bar(self) -> Iterator[Bar]:
        yield _SilentBar()

    def bar(self, label: str, total: int) -> AbstractContextManager[Bar]:
        return self._bar()

    def say(self, line: str) -> None:
        pass

    def record(self, curve: str, step: int, value: float) -> None:
        pass


SILENT = Silent()


class Recorded:
    """Passes everything on and keeps the learning curves, for the manifest of what was trained.

    Args:
        inner: Where bars and lines go.
    """

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._curves: dict[str, list[tuple[int, float]]] = {}

    def bar(self, label: str, total: int) -> AbstractContextManager[Bar]:
        return self._inner.bar(label, total)

    def say(self, line: str) -> None:
        self._inner.say(line)

    def record(self, curve: str, step: int, value: float) -> None:
        self._curves.setdefault(curve, []).append((step, float(f"{value:.6g}")))
        self._inner.record(curve, step, value)

    def curves_of(self, model: str) -> dict[str, list[tuple[int, float]]]:
        """Points (step, value) of the model's curves, in order; what was fitted on the way is left out."""
        return {name: points for name, points in self._curves.items() if name.split(" ")[0] == model}
