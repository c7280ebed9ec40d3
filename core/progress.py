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


SILENT = Silent()
