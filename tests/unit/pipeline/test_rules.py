from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.errors import SettingsError
from core.vocabulary import Vocabulary
from pipeline.rules import Rules, compile_rules, read_rules
from serving.rerank import NO_GROUP

ITEMS = Vocabulary(["a", "b", "c", "7"])
ATTRIBUTES = pa.table(
    {
        "genres": ["Drama|Comedy", "Drama", None, " Comedy | "],
        "year": [1995, 1996, None, 1995],
        "labels": [["x", "y"], [], ["y"], None],
    }
)


def rules(folder: Path, text: str) -> Rules:
    file = folder / "rules.toml"
    file.write_text(text, encoding="utf-8")
    return compile_rules(read_rules(file), ATTRIBUTES, ITEMS, file)


def members(found: Rules) -> list[tuple[list[int], int]]:
    """Rows and limit of each capped group."""
    return [
        (np.flatnonzero((found.groups == group).any(1)).tolist(), int(limit))
        for group, limit in enumerate(found.limits)
    ]


def test_an_empty_file_has_no_rules(tmp_path: Path) -> None:
    found = rules(tmp_path, "")
    assert not found.excluded.any()
    assert not found.boosts.any()
    assert found.groups.shape == (5, 0)
    assert found.limits.shape == (0,)


def test_excluded_items_are_named_or_share_a_value(tmp_path: Path) -> None:
    found = rules(tmp_path, '[[exclude]]\nitems = ["c"]\n[[exclude]]\nattribute = "year"\nvalues = [1996]')
    assert found.excluded.tolist() == [False, True, True, False]


def test_boosts_add_up_over_rules_and_not_within_one(tmp_path: Path) -> None:
    text = """
        [[boost]]
        attribute = "genres"
        values = ["Drama", "Comedy"]
        by = 0.5
        [[boost]]
        items = ["7", "b"]
        by = -0.25
    """
    assert rules(tmp_path, text).boosts.tolist() == [0.5, 0.25, 0, 0.25, 0]


def test_cap_of_an_attribute_counts_each_value(tmp_path: Path) -> None:
    found = rules(tmp_path, '[[cap]]\nattribute = "genres"\nat_most = 3')
    assert members(found) == [([0, 3], 3), ([0, 1], 3)]
    assert (found.groups[[2, 4]] == NO_GROUP).all()


def test_caps_of_values_items_and_lists_stand_together(tmp_path: Path) -> None:
    text = """
        [[cap]]
        attribute = "genres"
        values = ["Drama"]
        at_most = 2
        [[cap]]
        items = [7, "a"]
        at_most = 1
        [[cap]]
        attribute = "labels"
        at_most = 0
    """
    assert members(rules(tmp_path, text)) == [([0, 1], 2), ([0, 3], 1), ([0], 0), ([0, 2], 0)]


WRONG = {
    "an unknown section": ("[[forbid]]\nitems = ['a']", "forbid", "not permitted"),
    "an unknown key": ("[[cap]]\nattribute = 'genres'\nat_mots = 1", "cap.0", ""),
    "no limit": ("[[cap]]\nattribute = 'genres'", "cap.0.at_most", "required"),
    "a negative limit": ("[[cap]]\nattribute = 'genres'\nat_most = -1", "cap.0.at_most", "greater than or equal to 0"),
    "a boost that is not a number": ("[[boost]]\nitems = ['a']\nby = nan", "boost.0.by", "finite"),
    "a boost without bounds": ("[[boost]]\nitems = ['a']\nby = 1e9", "boost.0.by", "less than or equal to 10"),
    "items and an attribute": (
        "[[exclude]]\nitems = ['a']\nattribute = 'year'\nvalues = [1995]",
        "exclude.0",
        "either",
    ),
    "neither items nor an attribute": ("[[boost]]\nby = 1", "boost.0", "either"),
    "an attribute without values": ("[[exclude]]\nattribute = 'year'", "exclude.0", "needs values"),
    "one item instead of a list": ("[[exclude]]\nitems = 'a'", "exclude.0.items", "tuple"),
    "an unknown item": ("[[exclude]]\nitems = ['a', 'z']", "exclude[0]", "item of the dataset"),
    "an unknown attribute": ("[[cap]]\nattribute = 'genre'\nat_most = 1", "cap[0]", "genres, labels, year"),
    "an unknown value": ("[[boost]]\nattribute = 'genres'\nvalues = ['drama']\nby = 1", "boost[0]", "Comedy, Drama"),
    "no TOML": ("[[cap", "rules.toml", None),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    text, where, expected = WRONG[name]
    with pytest.raises(SettingsError) as error:
        rules(tmp_path, text)
    assert where in str(error.value.where)
    assert expected is None or expected in str(error.value.expected)


def test_a_close_name_is_proposed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        rules(tmp_path, "[[cap]]\nattribute = 'genre'\nat_most = 1")
    assert error.value.next_step == "did you mean genres?"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="rules file not found") as error:
        read_rules(tmp_path / "none.toml")
    assert "rerank.rules" in str(error.value.next_step)
