from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from core.errors import SettingsError
from training.tuning.ranges import parse_range


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("int:8:128", IntDistribution(8, 128)),
        ("int:8:128:log", IntDistribution(8, 128, log=True)),
        ("int:2:10:step=2", IntDistribution(2, 10, step=2)),
        ("float:0:0.7", FloatDistribution(0, 0.7)),
        ("float:1e-4:0.1:log", FloatDistribution(1e-4, 0.1, log=True)),
        ("float:-1:1:step=0.5", FloatDistribution(-1, 1, step=0.5)),
        ("choice:a,b", CategoricalDistribution(["a", "b"])),
        ("choice:16,32", CategoricalDistribution([16, 32])),
        ("choice:true,false", CategoricalDistribution([True, False])),
        ("choice:[[64, 32], [128]]", CategoricalDistribution(["[64, 32]", "[128]"])),
    ],
)
def test_text_becomes_distribution(text: str, distribution: object) -> None:
    assert parse_range("mf.dimension", text).distribution() == distribution


@pytest.mark.parametrize("text", ["int:8:128:log", "int:2:10:step=2", "float:0.1:0.7", 'choice:["a", 3]'])
def test_range_survives_being_written_and_read(text: str) -> None:
    once = parse_range("a.b", text)
    assert parse_range("a.b", str(once)) == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8:128", "choice:A,B,C"),
        ("int:8", "choice:A,B,C"),
        ("int:8:x", "choice:A,B,C"),
        ("int:8.5:20", "choice:A,B,C"),
        ("int:8:128:lag", "choice:A,B,C"),
        ("int:1:2:step=x", "choice:A,B,C"),
        ("int:128:8", "LOW below HIGH"),
        ("float:0:1:log", "LOW above 0"),
        ("float:1:9:log:step=1", "log or step"),
        ("float:0:1:step=2", "a step"),
        ("float:0:inf", "finite"),
        ("choice:a", "two or more"),
        ("choice:a,a", "two or more"),
        ("choice:[1, ", "choice:A,B,C"),
    ],
)
def test_unusable_range_is_refused_by_key(text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_range("gat.drop", text)
    assert "gat.drop" in str(refused.value)
    assert expected in str(refused.value)


def test_grid_of_logarithmic_integers_doubles() -> None:
    assert parse_range("a.b", "int:8:128:log").grid(5) == [8, 16, 32, 64, 128]


def test_grid_of_stepped_range_has_every_value() -> None:
    assert parse_range("a.b", "int:2:10:step=2").grid(2) == [2, 4, 6, 8, 10]


def test_grid_of_short_integer_range_repeats_nothing() -> None:
    assert parse_range("a.b", "int:1:2").grid(5) == [1, 2]


def test_grid_stays_within_float_ends() -> None:
    values = parse_range("a.b", "float:0.003:0.3:log").grid(7)
    assert values[0] >= 0.003
    assert values[-1] <= 0.3


def test_list_choice_comes_back_as_list() -> None:
    hidden = parse_range("ranker.hidden", "choice:[[64, 32], [128]]")
    assert [hidden.decode(value) for value in hidden.grid(9)] == [[64, 32], [128]]
    assert hidden.encode((128,)) == "[128]"


@pytest.mark.parametrize(
    ("text", "value"), [("int:1:8", 9), ("int:1:9:step=2", 4), ("choice:a,b", "c"), ("int:0:1", True)]
)
def test_value_outside_the_range_is_not_encoded(text: str, value: object) -> None:
    assert parse_range("a.b", text).encode(value) is None
