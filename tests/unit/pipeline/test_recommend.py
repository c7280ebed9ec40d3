from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import RequestError
from pipeline.recommend import read_users


def test_users_file_reads_one_id_a_line(tmp_path: Path) -> None:
    file = tmp_path / "users.txt"
    file.write_text("7\n007\n\n7\n")
    assert read_users(file) == ["7", "007"]


def test_users_file_reads_the_user_id_column_of_a_csv(tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text('name,user_id\nAnn,u1\n"B, Bob",u2\n')
    assert read_users(file) == ["u1", "u2"]


@pytest.mark.parametrize("content", ["", "user_id\n", "\n\n"])
def test_users_file_without_ids_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "users.txt"
    file.write_text(content)
    with pytest.raises(RequestError, match="no user ids"):
        read_users(file)


def test_missing_users_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        read_users(tmp_path / "nowhere.csv")
