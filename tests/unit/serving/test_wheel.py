from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ServerError
from serving.wheel import check_numpy, find_libpython, find_server


@pytest.mark.parametrize("version", ["2.0.0", "2.3.1", "10.0"])
def test_numpy_2_is_refused_because_tensors_come_back_empty(version: str) -> None:
    with pytest.raises(ServerError, match="empty tensors") as error:
        check_numpy(version)
    assert "numpy<2" in str(error.value.next_step)


def test_numpy_1_is_accepted() -> None:
    check_numpy("1.26.4")


def test_libpython_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "libpython3.11.so.1.0").touch()
    assert find_libpython((tmp_path / "none", tmp_path), "libpython3.11.so.1.0") == tmp_path


@pytest.mark.parametrize("soname", ["libpython3.11.a", "", "libpython3.11.so.1.0"])
def test_python_without_a_shared_library_names_the_package(tmp_path: Path, soname: str) -> None:
    with pytest.raises(ServerError, match="no shared library") as error:
        find_libpython((tmp_path,), soname)
    assert "apt install libpython3" in str(error.value.next_step)


def test_missing_server_names_make_setup(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="not installed") as error:
        find_server(tmp_path)
    assert error.value.next_step == "make setup"
