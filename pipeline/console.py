"""Progress on a terminal: bars for people, plain lines for logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBars

from core.progress import Bar


class _RichBar:
    def __init__(self, bars: RichBars, total: int, label: str) -> None:
        self._bars = bars
        self._task = bars.add_task(label, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        if note:
            self._bars.update(self._task, note=note)
        self._bars.advance(self._task, steps)


class Terminal:
    """A :class:`core.progress.Progress` that draws with Rich; bars vanish when done, summary lines stay."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    @contextmanager
    def _bar(self, label: str, total: int) -> Iterator[Bar]:
        columns = (
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        shown = self.console.is_terminal  # a log file gets the summary lines only
        with RichBars(*columns, console=self.console, transient=True, disable=not shown) as bars:
            yield _RichBar(bars, total, label)

    def bar(self, label: str, total: int) -> AbstractContextManager[Bar]:
        return self._bar(label, total)

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)

    def record(self, curve: str, step: int, value: float) -> None:
        """A terminal shows the newest figure in the bar's note already."""
