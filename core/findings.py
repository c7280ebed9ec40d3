"""What a check found wrong: one finding per broken rule, so that a reader sees all of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core.errors import ConchError


@dataclass(frozen=True)
class Finding:
    """One broken rule.

    Attributes:
        rule: Name of the check, such as ``version-name``.
        where: File or folder, with the key where there is one.
        what: One sentence.
        expected: What would have been right; empty where that is plain.
        found: What was there instead.
    """

    rule: str
    where: str
    what: str
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        parts = [f"{self.rule}: {self.what} ({self.where})"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.found:
            parts.append(f"found {self.found}")
        return "; ".join(parts)


def refuse(findings: Iterable[Finding], error: type[ConchError], next_step: str | None = None) -> None:
    """Raises ``error`` with every finding; does nothing where there is none.

    A single finding fills the error's own fields; of several the first one does, and all follow, one a line.
    """
    broken = list(findings)
    if not broken:
        return
    first = broken[0]
    what = f"{first.what} [{first.rule}]"
    if len(broken) > 1:
        what += "".join(f"\n  also {other}" for other in broken[1:])
    raise error(
        what, where=first.where, expected=first.expected or None, found=first.found or None, next_step=next_step
    )
