from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.audit import append, records, verify

LINES = 6


def write(path: Path, count: int = LINES) -> None:
    for number in range(count):
        append(path, actor="tester", action="activate", reason=f"näht {number}", before={"epoch": number})


def test_a_whole_chain_is_good(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert verify(path).bad_line is None
    write(path)
    assert (verify(path).lines, verify(path).bad_line) == (LINES, None)
    assert [record["before"]["epoch"] for record in records(path)] == list(range(LINES))


@settings(max_examples=15)
@given(data=st.data())
def test_any_flipped_byte_is_found_in_its_line_or_the_next(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    write(path, 3)
    body = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(body) - 1))
    line = body[:at].count(b"\n") + 1
    body[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(body)
    found = verify(path).bad_line
    assert found in (line, line + 1)


@pytest.mark.parametrize("removed", range(LINES))
def test_a_removed_line_is_found(tmp_path: Path, removed: int) -> None:
    path = tmp_path / "audit.jsonl"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:removed] + lines[removed + 1 :]))
    assert verify(path).bad_line == removed + 1


def test_an_inserted_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[0], *lines[2:]]))
    assert verify(path).bad_line == 3


def test_a_line_cut_by_a_crash_gives_way_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 2)
    with path.open("ab") as stream:
        stream.write(b'{"n": 3, "prev')
    assert verify(path).bad_line == 3
    write(path, 1)
    assert (verify(path).lines, verify(path).bad_line) == (3, None)
