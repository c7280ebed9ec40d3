"""The first worker's bars, lines and curves, shown by the process that started the workers: a file of JSON lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from core.progress import Bar, Progress

POLL_SECONDS = 0.1


class Relayed:
    """A :class:`core.progress.Progress` that appends to ``path``.

    Args:
        path: The file.
        restart: How often the workers have been started again.
    """

    def __init__(self, path: Path, restart: int) -> None:
        self._stream = path.open("a", encoding="utf-8", buffering=1)
        self._bars = 0
        self._stream.write("\n")  # ends a line that a killed worker left half written
        self._send(start=restart)

    def bar(self, label: str, total: int) -> AbstractContextManager[Bar]:
        return self._bar(label, total)

    @contextmanager
    def _bar(self, label: str, total: int) -> Iterator[Bar]:
        self._bars += 1
        number = self._bars
        self._send(bar=number, label=label, total=total)
        yield _RelayedBar(self, number)
        self._send(end=number)

    def say(self, line: str) -> None:
        self._send(say=line)

    def record(self, curve: str, step: int, value: float) -> None:
        self._send(curve=curve, step=step, value=value)

    def _send(self, **told: Any) -> None:
        self._stream.write(json.dumps(told) + "\n")


class _RelayedBar:
    def __init__(self, relayed: Relayed, number: int) -> None:
        self._relayed = relayed
        self._number = number

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._relayed._send(advance=self._number, steps=steps, note=note)


class _Player:
    """Does to a progress what the lines say."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open: dict[int, tuple[AbstractContextManager[Bar], Bar]] = {}
        self._newest: dict[str, tuple[int, float]] = {}

    def play(self, told: dict[str, Any]) -> None:
        if "start" in told:
            self._start(told["start"])
        elif "bar" in told:
            context = self._progress.bar(told["label"], told["total"])
            self._open[told["bar"]] = (context, context.__enter__())
        elif "advance" in told:
            self._open[told["advance"]][1].advance(told["steps"], told["note"])
        elif "end" in told:
            self._open.pop(told["end"])[0].__exit__(None, None, None)
        elif "say" in told:
            self._progress.say(told["say"])
        elif self._newest.get(told["curve"]) != (told["step"], told["value"]):  # a restart tells its checkpoint's again
            self._newest[told["curve"]] = (told["step"], told["value"])
            self._progress.record(told["curve"], told["step"], told["value"])

    def close(self) -> None:
        for context, _ in self._open.values():
            context.__exit__(None, None, None)
        self._open.clear()

    def _start(self, restart: int) -> None:
        self.close()
        if restart:
            self._progress.say(f"workers: one ended before its time, all go on from the newest checkpoint ({restart})")


@contextmanager
def shown(path: Path, progress: Progress) -> Iterator[None]:
    """Shows on ``progress`` what comes into ``path``, by a thread of its own, until the block ends."""
    ended = threading.Event()
    path.touch()
    thread = threading.Thread(target=_follow, args=(path, progress, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(path: Path, progress: Progress, ended: threading.Event) -> None:
    player, rest = _Player(progress), ""
    with path.open(encoding="utf-8") as stream:
        while True:
            last = ended.wait(POLL_SECONDS)
            *lines, rest = (rest + stream.read()).split("\n")
            for line in lines:
                try:
                    told = json.loads(line)
                except ValueError:
                    continue
                player.play(told)
            if last:
                break
    player.close()
