from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import SettingsError
from core.settings import Settings, change_settings, load_settings
from training.models.fitters import FITTERS
from training.tuning.space import search_space


def test_default_space_exists_for_every_model() -> None:
    for model in (*FITTERS, "ranker"):
        space = search_space(model, Settings())
        assert space.ranges
        assert all(key.split(".")[0] == model for key in space.ranges)


def test_default_spaces_hold_the_default_settings() -> None:
    for model in (*FITTERS, "ranker"):
        assert search_space(model, Settings()).encode(Settings()) is not None


def test_space_of_a_section_without_table_lies_around_its_numbers() -> None:
    from training.tuning.default_spaces import default_ranges

    ranges = default_ranges("recall", Settings())
    assert str(ranges["recall.popularity_half_life_days"]) == "float:7.5:120.0:log"


def test_model_without_section_asks_for_a_space() -> None:
    with pytest.raises(SettingsError, match="--search"):
        search_space("nothing", Settings())


def test_searches_replace_the_default_space() -> None:
    assert search_space("mf", Settings(), searches=("mf.dimension=int:8:64",)).as_text() == {"mf.dimension": "int:8:64"}


def test_search_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text('[mf]\ndimension = "int:8:16"\nsolver = ["numba", "torch"]\n')
    space = search_space("mf", Settings(), file=file, searches=("mf.dimension=int:8:64",))
    assert space.as_text() == {"mf.dimension": "int:8:64", "mf.solver": 'choice:["numba", "torch"]'}


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ("mf.dimenson=int:8:64", "did you mean mf.dimension?"),
        ("mf=int:8:64", "unknown setting"),
        ("mf.dimension", "SECTION.KEY=RANGE"),
        ("mf.dimension=int:0:64", "0 in int:0:64"),
        ("gat.drop=float:0:1", "1.0 in float:0.0:1.0"),
        ("mf.dimension=float:8:64", "whole number"),
        ("mf.solver=int:1:2", "not a number"),
        ("mf.solver=choice:numba,cuda", '"cuda" in choice'),
        ("data.min_user_events=int:1:5", "not for searching"),
    ],
)
def test_bad_search_is_explained(search: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        search_space("mf", Settings(), searches=(search,))
    assert told in str(refused.value)


def test_missing_space_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        search_space("mf", Settings(), file=tmp_path / "none.toml")


def test_empty_space_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text("# nothing\n")
    with pytest.raises(SettingsError, match="names no setting"):
        search_space("mf", Settings(), file=file)


def test_settings_outside_the_space_have_no_place_in_it() -> None:
    assert search_space("mf", Settings(), searches=("mf.dimension=int:64:128",)).encode(Settings()) is None


def test_changed_settings_keep_everything_else() -> None:
    before = load_settings((), ("mf.epochs=3", "ranker.hidden=[8]"))
    after = change_settings(before, {"mf.dimension": 5})
    assert after.mf.dimension == 5
    assert after.model_copy(update={"mf": before.mf}) == before
