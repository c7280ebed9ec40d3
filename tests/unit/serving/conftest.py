"""One synthetic release for all tests of this folder; nobody writes into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.synthetic_release import write_synthetic_release


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete small release."""
    folder = tmp_path_factory.mktemp("release")
    write_synthetic_release(folder)
    return folder
