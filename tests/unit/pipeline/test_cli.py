from __future__ import annotations

import pytest

from core.errors import DataError
from pipeline.cli import guarded, main


def test_expected_failure_exits_2_and_tells_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise DataError("events file is empty", where="events.csv", next_step="add rows")

    assert guarded(fail) == 2
    told = capsys.readouterr().err
    assert "events file is empty" in told
    assert "next: add rows" in told


def test_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)


def test_unknown_setting_is_named_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["dataset", "--set", "data.sorce=files"])
    assert stopped.value.code == 2
    assert "did you mean data.source?" in capsys.readouterr().err


def test_stage_without_its_input_names_the_command(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", "--set", f'paths.var="{tmp_path}"'])
    assert stopped.value.code == 2
    assert "conch train" in capsys.readouterr().err
