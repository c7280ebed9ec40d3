"""Settings: defaults, files, overrides, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.errors import SettingsError
from core.settings import Settings, load_settings


def write(folder: Path, text: str, name: str = "own.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_hold_without_files() -> None:
    assert load_settings() == Settings()
    assert load_settings().data.source == "movielens-100k"


def test_later_file_wins_key_by_key(tmp_path: Path) -> None:
    one = write(tmp_path, '[data]\nsource = "synthetic"\nseed = 1\n', "one.toml")
    two = write(tmp_path, "[data]\nseed = 2\n", "two.toml")
    data = load_settings((one, two)).data
    assert (data.source, data.seed) == ("synthetic", 2)


def test_override_wins_over_files(tmp_path: Path) -> None:
    file = write(tmp_path, "[train]\nseed = 1\n")
    assert load_settings((file,), ("train.seed=7",)).train.seed == 7


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("train.seed=3", "train", "seed", 3),
        ('train.fit=["train"]', "train", "fit", ("train",)),
        ("data.source=synthetic", "data", "source", "synthetic"),
        ('data.source="synthetic"', "data", "source", "synthetic"),
        ("data.events=some/where.csv.gz", "data", "events", Path("some/where.csv.gz")),
        ("data.max_bad_share=0", "data", "max_bad_share", 0.0),
        (" paths.var = /a=b ", "paths", "var", Path("/a=b")),
    ],
)
def test_override_is_read_as_toml_with_quotes_optional(text: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(load_settings((), (text,)), section), key) == value


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("data.souce=files", "data.source"),
        ("train.sed=1", "train.seed"),
        ("trian.seed=1", "train"),
        ("data.min_user_event=3", "data.min_user_events"),
    ],
)
def test_unknown_key_is_named_with_a_suggestion(text: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings((), (text,))
    assert caught.value.what.startswith("unknown setting ")
    assert text.split("=")[0].startswith(str(caught.value.where))
    assert hint in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train.seed=soon", "train.seed"),
        ("data.max_bad_share=1.5", "data.max_bad_share"),
        ("data.max_bad_share=nan", "data.max_bad_share"),
        ("mf.value_slope=nan", "mf.value_slope"),
        ("mf.value_slope=inf", "mf.value_slope"),
        ('train.fit=["dev"]', "train.fit.0"),
        ("mf.solver=magic", "mf.solver"),
        ("recall.candidates=0", "recall.candidates"),
        ("data.min_user_events=1.5", "data.min_user_events"),
    ],
)
def test_wrong_value_is_named_with_what_was_expected_and_found(text: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings((), (text,))
    assert caught.value.where == key
    assert caught.value.expected
    assert caught.value.found


@pytest.mark.parametrize("text", ["seed=3", "train.seed", "=3", ".seed=3", "train.=3", ""])
def test_override_without_section_key_and_value_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="cannot read --set"):
        load_settings((), (text,))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"not found[\s\S]*none.toml"):
        load_settings((tmp_path / "none.toml",))


def test_file_that_is_no_toml_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"own.toml[\s\S]*line 2"):
        load_settings((write(tmp_path, "[data]\nsource = \n"),))


def test_file_with_a_value_for_a_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings((write(tmp_path, "data = 3\n"),))
    assert caught.value.where == "data"


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.train.__setattr__("seed", 3)
