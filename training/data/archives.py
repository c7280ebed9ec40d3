"""Text members of zip archives."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from core.errors import DataError


class Archive:
    """A zip file whose members are known by the end of their names.

    Args:
        path: The zip file.

    Raises:
        DataError: It is no zip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._names = archive.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                "not a zip file, or a damaged one",
                where=str(path),
                found=str(error),
                next_step=f"delete {path} to fetch it again",
            ) from None

    def find(self, ending: str) -> str | None:
        """The member whose path ends in ``/ending``, or None."""
        return next((name for name in self._names if name == ending or name.endswith(f"/{ending}")), None)

    def name(self, ending: str) -> str:
        """The member that ends so, as told to people. Raises DataError when there is none."""
        return f"{self.path}:{self._member(ending)}"

    def opener(self, ending: str) -> Callable[[], IO[bytes]]:
        """Opens the member, any number of times. Raises DataError when there is none."""
        member = self._member(ending)
        return lambda: zipfile.ZipFile(self.path).open(member)

    def read(self, ending: str) -> bytes:
        """The member's bytes. Raises DataError when there is none."""
        with self.opener(ending)() as stream:
            return stream.read()

    def _member(self, ending: str) -> str:
        found = self.find(ending)
        if found is None:
            raise DataError(
                "archive lacks a file", where=str(self.path), expected=ending, found=", ".join(self._names[:20])
            )
        return found
