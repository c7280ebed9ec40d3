"""Business rules: a TOML file says which items never come back, which are lifted, and how many alike a list may hold.

    [[exclude]]                     # never recommended, by no stage
    items = ["50", "181"]

    [[boost]]                       # lifted by a fifth of the distance between a list's best and worst candidate
    attribute = "genres"
    values = ["Documentary"]
    by = 0.2

    [[cap]]                         # at most three items of each genre in a list; with values, of those alone
    attribute = "genres"
    at_most = 3

Attributes are the columns of the items table; a cell of tags (``Action|Drama``) has several values. Everything that a
rule names has to exist, so that a typo cannot switch a rule off.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from core.artifacts import Artifact
from core.errors import SettingsError
from core.vocabulary import Vocabulary
from serving.rerank import NO_GROUP

SETTING = "rerank.rules"
TAG_MARK = "|"
SHOWN_VALUES = 12
NOT_ATTRIBUTES = ("item_id", "title")

S = TypeVar("S", bound="Selection")


class Selection(BaseModel):
    """Which items a rule is about: named ones, or those with a value of an attribute."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    items: tuple[str, ...] = ()
    attribute: str | None = None
    values: tuple[str, ...] = ()

    @field_validator("items", "values", mode="before")
    @classmethod
    def _as_text(cls, given: object) -> object:
        """Numbers are ids and values too."""
        if isinstance(given, list):
            return [str(entry) if isinstance(entry, int | float) and not isinstance(entry, bool) else entry
                    for entry in given]  # fmt: skip
        return given

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if bool(self.items) == (self.attribute is not None) or (self.items and self.values):
            raise ValueError("either items, or attribute with values")
        return self


class Exclude(Selection):
    """Items that are never recommended."""

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        return _with_values(self)


class Boost(Selection):
    """Items that are lifted, or pushed down where ``by`` is negative."""

    by: float = Field(ge=-10, le=10)
    """In shares of the distance between a list's best and worst candidate; several boosts of an item add up."""

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        return _with_values(self)


class Cap(Selection):
    """How many items of a group one list may hold: the named items, or each value of an attribute."""

    at_most: int = Field(ge=0)


class RulesFile(BaseModel):
    """The file as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exclude: tuple[Exclude, ...] = ()
    boost: tuple[Boost, ...] = ()
    cap: tuple[Cap, ...] = ()


@dataclass(frozen=True)
class Rules:
    """Rules as arrays over the catalogue.

    Attributes:
        excluded: bool ``(I,)``.
        boosts: float32 ``(I + 1,)``, the padding row last.
        groups: int32 ``(I + 1, G)``, capped groups of each item, ``NO_GROUP`` where none.
        limits: int32 ``(groups,)``.
    """

    excluded: np.ndarray
    boosts: np.ndarray
    groups: np.ndarray
    limits: np.ndarray


def load_rules(file: Path | None, dataset: Artifact, items: Vocabulary) -> Rules:
    """Reads a rules file and applies it to the items of a dataset; no file, no rules.

    Raises:
        SettingsError: The file is missing or no TOML, or a rule has an unknown key, item, attribute or
            value.
    """
    if file is None:
        return compile_rules(RulesFile(), pa.table({}), items, Path())
    table = pq.read_table(dataset.file("items.parquet"))
    return compile_rules(read_rules(file), table.drop_columns(list(NOT_ATTRIBUTES)), items, file)


def read_rules(file: Path) -> RulesFile:
    """Parses a rules file. Raises SettingsError, see ``load_rules``."""
    try:
        return RulesFile.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SettingsError(
            "rules file not found", where=str(file), next_step=f"name an existing file in {SETTING}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("rules file is not valid TOML", where=str(file), found=str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(
            "a rule cannot be read",
            where=f"{file}, {'.'.join(map(str, first['loc']))}",
            expected=first["msg"],
            found=repr(first.get("input"))[:200],
        ) from None


def compile_rules(rules: RulesFile, attributes: pa.Table, items: Vocabulary, file: Path) -> Rules:
    """Rules as arrays.

    Args:
        rules: What the file says.
        attributes: Item attribute columns ``(I,)`` in row order.
        items: I items.
        file: Named in errors.
    """
    catalogue = _Catalogue(attributes, items, file)
    excluded = np.zeros(len(items), dtype=bool)
    boosts = np.zeros(len(items) + 1, dtype=np.float32)
    for at, exclude in enumerate(rules.exclude):
        for rows in catalogue.groups(exclude, f"exclude[{at}]"):
            excluded[rows] = True
    for at, boost in enumerate(rules.boost):
        boosts[np.unique(np.concatenate(catalogue.groups(boost, f"boost[{at}]")))] += np.float32(boost.by)
    members: list[np.ndarray] = []
    limits: list[int] = []
    for at, cap in enumerate(rules.cap):
        found = catalogue.groups(cap, f"cap[{at}]")
        members += found
        limits += [cap.at_most] * len(found)
    return Rules(excluded, boosts, _as_slots(members, len(items) + 1), np.array(limits, dtype=np.int32))


class _Catalogue:
    """Items and their attribute values, by what a rule may name."""

    def __init__(self, attributes: pa.Table, items: Vocabulary, file: Path) -> None:
        self._attributes = attributes
        self._items = items
        self._file = file
        self._known: dict[str, dict[str, np.ndarray]] = {}

    def groups(self, selection: Selection, where: str) -> list[np.ndarray]:
        """Rows of the items that a rule selects: one group of named items, or one per value."""
        if selection.items:
            return [self._named(selection.items, where)]
        name = str(selection.attribute)
        if name not in self._attributes.column_names:
            raise self._unknown("attribute", name, self._attributes.column_names, where)
        rows_of = self._values(name)
        for value in selection.values:
            if value not in rows_of:
                raise self._unknown(f"value of {name}", value, rows_of, where)
        return [rows_of[value] for value in selection.values or sorted(rows_of)]

    def _named(self, ids: tuple[str, ...], where: str) -> np.ndarray:
        rows = self._items.rows(ids)
        if (rows < 0).any():
            raise self._unknown("item", ids[int((rows < 0).argmax())], (), where)
        return np.unique(rows)

    def _values(self, name: str) -> dict[str, np.ndarray]:
        if name not in self._known:
            self._known[name] = _rows_by_value(self._attributes[name].combine_chunks())
        return self._known[name]

    def _unknown(self, what: str, found: str, known: Iterable[str], where: str) -> SettingsError:
        names = sorted(known)
        close = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
        shown = ", ".join(names[:SHOWN_VALUES]) + (" …" if len(names) > SHOWN_VALUES else "")
        return SettingsError(
            f"a rule names an unknown {what}",
            where=f"{self._file}, {where}",
            expected=shown or "an item of the dataset",
            found=found,
            next_step=f"did you mean {close[0]}?" if close else "correct the rule, or remove it",
        )


def _rows_by_value(cells: pa.Array) -> dict[str, np.ndarray]:
    """Rows that have each value of a column, ascending; blanks and nulls are no value."""
    if not (pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type)):
        cells = pc.split_pattern(cells.cast(pa.string()), TAG_MARK)
    owners = pc.list_parent_indices(cells).to_numpy()
    texts = pc.utf8_trim_whitespace(pc.list_flatten(cells).cast(pa.string()))
    known = pc.fill_null(pc.not_equal(texts, ""), False).to_numpy(zero_copy_only=False)
    coded = texts.filter(pa.array(known)).dictionary_encode()
    codes = coded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    groups = np.split(owners[known][order], np.cumsum(np.bincount(codes, minlength=len(coded.dictionary)))[:-1])
    return {str(value): np.unique(rows) for value, rows in zip(coded.dictionary.to_pylist(), groups, strict=False)}


def _as_slots(members: list[np.ndarray], rows: int) -> np.ndarray:
    """Groups of each row side by side, int32 ``(rows, G)`` with G the most that one row has."""
    owners = np.concatenate([np.zeros(0, np.int64), *members])
    numbers = np.repeat(np.arange(len(members), dtype=np.int32), [len(group) for group in members])
    order = np.argsort(owners, kind="stable")
    owners, numbers = owners[order], numbers[order]
    slots = np.arange(len(owners)) - np.searchsorted(owners, owners)
    table = np.full((rows, int(slots.max(initial=-1)) + 1), NO_GROUP, dtype=np.int32)
    table[owners, slots] = numbers
    return table


def _with_values(rule: S) -> S:
    if rule.attribute is not None and not rule.values:
        raise ValueError("attribute needs values")
    return rule
