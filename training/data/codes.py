"""Attribute columns become integer codes: categories, tags, buckets of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.codebook import NO_CODES, TAG_MARK, Codebook, ColumnCodes
from core.features import UNKNOWN, FeatureColumn, FeatureTable
from training.data.cells import Numbers, is_number, is_text, is_time, read_numbers
from training.data.dense import is_dense

MOST_CODES = 1_000
"""Codes per attribute, UNKNOWN included; rarer values are UNKNOWN."""
TAG_SLOTS = 8
"""Tags kept per row: the most frequent ones of the table."""
FEWEST_TAGGED_SHARE = 0.02
"""A column is tags when at least this share of its cells holds a ``|``."""
MOST_NUMBER_CATEGORIES = 32
"""A numeric column with at most this many distinct numbers is a category."""
BUCKETS = 10
MOST_STRAY_SHARE = 0.01
"""A text column is numeric with at most this share of other cells, which become UNKNOWN."""
DISTINCT_SHARE = 0.5
"""A column with more distinct values per known row than this tells rows apart and not alike: it is skipped."""
FEWEST_DISTINCT = 10
"""Columns with at most this many distinct values are never skipped for that."""


@dataclass(frozen=True)
class Coded:
    """One attribute as codes int32 ``(rows, width)``, and what the codes mean."""

    book: ColumnCodes
    codes: np.ndarray

    @property
    def column(self) -> FeatureColumn:
        """The attribute."""
        return self.book.column


@dataclass(frozen=True)
class Fitted:
    """All attributes of a table.

    Attributes:
        table: Codes of all rows.
        skipped: Columns without codes, and why.
        codebook: What the codes mean.
    """

    table: FeatureTable
    skipped: dict[str, str]
    codebook: Codebook = NO_CODES


def fit_features(
    columns: pa.Table,
    rows: np.ndarray,
    total: int,
    leave: tuple[str, ...] = (),
    categories: frozenset[str] = frozenset(),
) -> Fitted:
    """Learns codes from a table and lays them out by row.

    Codes are learned from all rows: attributes are known before any event, so nothing leaks from the later splits.

    Args:
        columns: Attribute columns ``(n,)``.
        rows: Where each of the n rows belongs, int64; rows without attributes stay UNKNOWN.
        total: Rows of the result.
        leave: Columns that are no attributes, such as the title.
        categories: Text columns that are categories, whatever they look like.
    """
    found: list[Coded] = []
    skipped: dict[str, str] = {}
    for name in columns.column_names:
        if name in leave:
            skipped[name] = "shown to people, not an attribute"
            continue
        if is_dense(columns[name].type):
            skipped[name] = "vectors, not an attribute"
            continue
        cells = columns[name].combine_chunks()
        coded = _category(name, cells, told=True) if name in categories else _code(name, cells)
        if isinstance(coded, str):
            skipped[name] = coded
        else:
            found.append(coded)
    width = sum(coded.column.width for coded in found)
    codes = np.full((total, width), UNKNOWN, dtype=np.int32)
    if found:
        codes[rows] = np.concatenate([coded.codes for coded in found], axis=1)
    codebook = Codebook(tuple(coded.book for coded in found))
    return Fitted(FeatureTable(tuple(coded.column for coded in found), codes), skipped, codebook)


def _code(name: str, cells: pa.Array) -> Coded | str:
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        return _tags(name, cells)
    if pa.types.is_boolean(cells.type):
        cells = cells.cast(pa.string())
    if is_text(cells.type):
        cells = _blank_to_null(cells.cast(pa.string()))
        if cells.null_count == len(cells):
            return "empty"
        marked = pc.mean(pc.match_substring(cells, TAG_MARK).cast(pa.float64())).as_py()
        if marked >= FEWEST_TAGGED_SHARE:
            return _tags(name, pc.split_pattern(cells, TAG_MARK))
        numbers = None if _spelled_as_code(cells) else _all_numbers(cells)
    elif is_number(cells.type) or is_time(cells.type):
        numbers = read_numbers(pa.chunked_array([cells]), times=True)
    else:
        return f"type {cells.type} is not read"
    if numbers is not None and (buckets := _number(name, numbers)) is not None:
        return buckets
    return _category(name, cells.cast(pa.string()))


def _category(name: str, cells: pa.Array, *, told: bool = False) -> Coded | str:
    """``told``: somebody said so, so that many different values are no reason to leave it out."""
    known = len(cells) - cells.null_count
    values = pc.value_counts(cells.drop_null())
    distinct = len(values)
    if distinct <= 1:
        return "empty" if known == 0 else "one value throughout"
    if not told and distinct > max(FEWEST_DISTINCT, DISTINCT_SHARE * known):
        return f"{distinct:,} different values in {known:,} rows"
    codebook = _by_frequency(values)
    codes = _look_up(cells, codebook)
    column = FeatureColumn(name, "category", len(codebook) + 1, 1)
    return Coded(ColumnCodes(column, tuple(codebook.to_pylist())), codes[:, None])


def _tags(name: str, lists: pa.Array) -> Coded | str:
    owners = pc.list_parent_indices(lists).to_numpy()
    tags = _blank_to_null(pc.utf8_trim_whitespace(pc.list_flatten(lists).cast(pa.string())))
    known = tags.is_valid().to_numpy(zero_copy_only=False)
    owners, tags = owners[known], tags.drop_null()
    values = pc.value_counts(tags)
    if len(values) <= 1:
        return "empty" if len(tags) == 0 else "one tag throughout"
    if len(values) > max(FEWEST_DISTINCT, DISTINCT_SHARE * len(tags)):
        return f"{len(values):,} different tags among {len(tags):,}"
    codebook = _by_frequency(values)
    codes = _look_up(tags, codebook)
    # Codes ascend with falling frequency: per row, distinct codes in order, the first TAG_SLOTS of them.
    keys = np.unique(owners[codes > 0].astype(np.int64) * MOST_CODES + codes[codes > 0])
    owners, codes = keys // MOST_CODES, keys % MOST_CODES
    slots = np.arange(len(keys)) - np.searchsorted(owners, owners)
    kept = slots < TAG_SLOTS
    width = int(slots[kept].max(initial=0)) + 1
    matrix = np.full((len(lists), width), UNKNOWN, dtype=np.int32)
    matrix[owners[kept], slots[kept]] = codes[kept]
    column = FeatureColumn(name, "tags", len(codebook) + 1, width)
    return Coded(ColumnCodes(column, tuple(codebook.to_pylist())), matrix)


def _number(name: str, numbers: Numbers) -> Coded | None:
    """Quantile buckets, or None for a column of few numbers, which is a category."""
    known = np.isfinite(numbers.values)
    values = numbers.values[known]
    if len(np.unique(values)) <= MOST_NUMBER_CATEGORIES:
        return None
    edges = np.unique(np.quantile(values, np.arange(1, BUCKETS) / BUCKETS))
    codes = np.full(len(known), UNKNOWN, dtype=np.int32)
    codes[known] = 1 + np.searchsorted(edges, values, side="right")
    column = FeatureColumn(name, "number", len(edges) + 2, 1)
    return Coded(ColumnCodes(column, edges=tuple(edges.tolist())), codes[:, None])


def _all_numbers(cells: pa.Array) -> Numbers | None:
    numbers = read_numbers(pa.chunked_array([cells]))
    known = len(cells) - cells.null_count
    return None if numbers is None or numbers.unusable.sum() > MOST_STRAY_SHARE * known else numbers


def _spelled_as_code(cells: pa.Array) -> bool:
    """Leading zeros: 00501 is a zip code, not a number."""
    return bool(pc.any(pc.match_substring_regex(cells, r"^\s*0\d")).as_py())


def _by_frequency(values: pa.StructArray) -> pa.Array:
    """Values by falling count, ties by text, as many as there are codes."""
    table = pa.table({"value": values.field("values"), "count": values.field("counts")})
    ordered = table.sort_by([("count", "descending"), ("value", "ascending")])
    return ordered["value"].combine_chunks()[: MOST_CODES - 1]


def _look_up(cells: pa.Array, codebook: pa.Array) -> np.ndarray:
    places = pc.index_in(cells, value_set=codebook, skip_nulls=True)
    return np.asarray(pc.fill_null(pc.add(places, 1), UNKNOWN).to_numpy(zero_copy_only=False), dtype=np.int32)


def _blank_to_null(cells: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(cells), ""), pa.scalar(None, pa.string()), cells)
