"""Measured tables of the README hold what committed result files hold.

A table counts as measured when a line ``<!-- from bench/results/FILE.json -->`` (several files: separated by spaces)
stands above it. Every number outside its first column must occur in those files, rounded as the table shows it; where
the first column names a row of the file (``rows[].name``, with or without "conch "), it must occur in that row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest

from core.settings import ROOT

MARKER = re.compile(r"<!-- from ((?:bench/results/[\w.-]+\.json ?)+)-->")
NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d[\d,]*)?(?:\.\d+|\d)(?![\w.])")


def measured_tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """File names and body lines (cells) of every marked table."""
    files: list[str] = []
    table: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if found := MARKER.search(line):
            assert not files, f"no table below the marker of {files}"
            files = found.group(1).split()
        elif line.lstrip().startswith("|"):
            table.append([cell.strip().strip("*") for cell in line.strip().strip("|").split("|")])
        elif table:
            if files:
                yield files, table[2:]
            files, table = [], []
    assert not files, f"no table below the marker of {files}"


def numbers_in(value: Any) -> Iterator[float]:
    """All numbers of a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from numbers_in(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def named(value: Any, name: str) -> Iterator[dict[str, Any]]:
    """All JSON objects that carry this name."""
    if isinstance(value, dict):
        if str(value.get("name", "")).removeprefix("conch ").lower() == name.removeprefix("conch ").lower():
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from named(one, name)


def shown_as(value: float, text: str) -> bool:
    """Whether ``value``, rounded to the decimals of ``text``, is ``text``; halves may go either way."""
    wanted = Decimal(text.replace(",", "").replace("−", "-").lstrip("+"))
    step = Decimal(1).scaleb(int(wanted.as_tuple().exponent))
    near = Decimal(repr(value)).quantize(step, ROUND_HALF_EVEN) == wanted
    return near or abs(Decimal(repr(value)) - wanted) * 2 == step


def wrong_numbers(readme: str, root: Path) -> list[str]:
    """``row: number`` for every number of a measured table that its files do not hold."""
    wrong = []
    for files, lines in measured_tables(readme):
        results = [json.loads((root / file).read_text(encoding="utf-8")) for file in files]
        for first, *cells in lines:
            own = [one for result in results for one in named(result, first)] or results
            held = [number for one in own for number in numbers_in(one)]
            wrong += [
                f"{first}: {text}"
                for cell in cells
                for text in NUMBER.findall(cell)
                if not any(shown_as(value, text) for value in held)
            ]
    return wrong


def test_readme_numbers_are_those_of_committed_results() -> None:
    assert wrong_numbers((ROOT / "README.md").read_text(encoding="utf-8"), ROOT) == []


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "bench" / "results").mkdir(parents=True)
    rows = [{"name": "EASE", "ndcg": 0.26944, "s": 1500}, {"name": "conch mf", "ndcg": 0.2965, "gap": -0.0123}]
    (tmp_path / "bench" / "results" / "a.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    return tmp_path


def readme(*lines: str) -> str:
    return "\n".join(["<!-- from bench/results/a.json -->", "", "| model | NDCG@10 |", "|---|---|", *lines, "", "end"])


@pytest.mark.parametrize("cell", ["0.269", ".2694", "**0.2694**", "0.269 ± 1,500", "text"])
def test_number_of_the_named_row_is_found(results: Path, cell: str) -> None:
    assert wrong_numbers(readme(f"| EASE | {cell} |"), results) == []


@pytest.mark.parametrize("cell", ["0.270", "0.2695", "0.2965", "1,501"])
def test_other_number_or_that_of_another_row_is_reported(results: Path, cell: str) -> None:
    assert wrong_numbers(readme(f"| EASE | {cell} |"), results) == [f"EASE: {cell}"]


@pytest.mark.parametrize("cell", ["0.296", "0.297", "-0.0123", "−0.012"])
def test_halves_and_signs_are_read(results: Path, cell: str) -> None:
    assert wrong_numbers(readme(f"| mf | {cell} |"), results) == []


def test_table_without_a_marker_is_not_looked_at(results: Path) -> None:
    assert wrong_numbers("| EASE | 9 |\n|---|---|\n| EASE | 9 |", results) == []


def test_marker_without_a_table_is_an_error(results: Path) -> None:
    with pytest.raises(AssertionError, match="no table"):
        wrong_numbers("<!-- from bench/results/a.json -->\n\ntext", results)
