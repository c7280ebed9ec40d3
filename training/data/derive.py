"""Columns as they are become columns as the settings want them: the section [features].

What comes out is text (categories), lists of text (tags) or untouched columns; codes.py turns those into codes.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import SettingsError
from core.sections import FeatureSettings, FeatureSpec
from training.data.cells import is_number, is_text, is_time, read_numbers

TAG_MARK = "|"
CROSS_MARK = " x "
YEAR = r"(?s).*\b(?P<year>(?:1[89]|20)\d\d)\b"
"""The last year in a text."""
DIGITS = 6


@dataclass(frozen=True)
class Derived:
    """Columns for ``fit_features``.

    Attributes:
        columns: The attributes.
        leave: Columns among them that are no attributes.
        categories: Columns among them that are categories, whatever they look like.
    """

    columns: pa.Table
    leave: tuple[str, ...]
    categories: frozenset[str]


def derive_columns(
    given: pa.Table, features: FeatureSettings, noun: Literal["user", "item"], titles: tuple[str, ...] = ()
) -> Derived:
    """Applies the specs of one table, then leaves out what is to be skipped.

    Args:
        given: Columns of the table, ids left out.
        features: The section.
        noun: Whose table.
        titles: Columns shown to people; no attributes unless a spec says so.

    Raises:
        SettingsError: A spec or a skip names a column that is not there, or a spec cannot be carried out.
    """
    where = f"features.{noun}s"
    specs, skip = (features.users, features.skip_users) if noun == "user" else (features.items, features.skip_items)
    made, categories = dict(zip(given.column_names, given.columns, strict=True)), set[str]()
    if specs:
        made = {}
        for at, spec in enumerate(specs):
            name = spec.name or spec.column or CROSS_MARK.join(spec.of)
            if not name or name in made:
                raise SettingsError(
                    "a feature needs a name of its own", where=f"{where}[{at}]", found=name or "neither column nor of"
                )
            made[name] = _make(given, made, spec, f"{where}[{at}] {name}")
            if spec.kind not in ("auto", "tags"):
                categories.add(name)
    for name in skip:
        if name not in made:
            raise _unknown(name, made, f"features.skip_{noun}s")
    kept = {name: cells for name, cells in made.items() if name not in skip}
    return Derived(pa.table(kept), () if specs else titles, frozenset(categories & kept.keys()))


def _make(given: pa.Table, made: dict[str, pa.ChunkedArray], spec: FeatureSpec, where: str) -> pa.ChunkedArray:
    if spec.kind == "cross":
        return pa.chunked_array([_rare_to_null(_cross(given, made, spec, where), spec.min_count)])
    if spec.column not in given.column_names:
        raise _unknown(spec.column, given.column_names, where)
    column = given[spec.column]
    if spec.kind == "auto":
        return column
    if spec.kind == "tags":
        return pa.chunked_array([_tags(column, spec, where)])
    if spec.kind in ("number", "year"):
        texts = _buckets(_years(column, where) if spec.kind == "year" else _numbers(column, where), spec, where)
    elif spec.kind == "date":
        texts = _date_part(_numbers(column, where), spec.part)
    else:
        texts = _texts(column, where)
        if spec.kind == "hash":
            texts = _hashed(texts, spec.buckets, where)
    return pa.chunked_array([_rare_to_null(texts, spec.min_count)])


def _texts(column: pa.ChunkedArray, where: str) -> pa.Array:
    """Cells as text, blank ones null."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_nested(column.type):
        raise SettingsError("a column of lists is no category", where=where, expected='kind = "tags"')
    cells = pa.chunked_array(column.chunks, column.type).cast(pa.string()).combine_chunks()
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(cells), ""), pa.scalar(None, pa.string()), cells)


def _numbers(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """float64, NaN where a cell is none."""
    if not (is_text(column.type) or is_number(column.type) or is_time(column.type)):
        raise SettingsError("not a column of numbers", where=where, found=str(column.type))
    numbers = read_numbers(column, times=True)
    values = np.full(len(column), np.nan) if numbers is None else numbers.values
    values = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(values).all():
        raise SettingsError("not a column of numbers", where=where, expected="numbers or dates", found="none")
    return values


def _years(column: pa.ChunkedArray, where: str) -> np.ndarray:
    found = pc.extract_regex(_texts(column, where), pattern=YEAR)
    years = pc.cast(pc.struct_field(found, "year"), pa.float64())
    values = np.asarray(pc.fill_null(years, np.nan).to_numpy(zero_copy_only=False), dtype=np.float64)
    if np.isnan(values).all():
        raise SettingsError("no year in this column", where=where, expected="text such as Toy Story (1995)")
    return values


def _buckets(values: np.ndarray, spec: FeatureSpec, where: str) -> pa.Array:
    known = ~np.isnan(values)
    if spec.edges:
        edges = np.array(spec.edges)
        if (np.diff(edges) <= 0).any():
            raise SettingsError("edges have to ascend", where=where, found=str(list(spec.edges)))
    elif spec.buckets == 0:
        return _labels(known, [f"{value:.{DIGITS}g}" for value in np.where(known, values, 0)])
    else:
        shares = np.arange(1, spec.buckets) / max(spec.buckets, 1)
        if spec.scale == "quantile":
            edges = np.unique(np.quantile(values[known], shares))
        else:
            if spec.scale == "log" and values[known].min() < 0:
                raise SettingsError(
                    "a logarithm needs numbers from 0 on", where=where, found=f"{values[known].min():g}"
                )
            low, high = values[known].min(), values[known].max()
            logs = np.log1p([low, high])
            inside = (
                np.expm1(logs[0] + shares * (logs[1] - logs[0])) if spec.scale == "log" else low + shares * (high - low)
            )
            edges = np.unique(inside)
    bounds = [f"{edge:.{DIGITS}g}" for edge in edges]
    names = [f"{low}..{high}" for low, high in zip(["", *bounds], [*bounds, ""], strict=True)]
    places = np.searchsorted(edges, np.where(known, values, 0), side="right")
    return _labels(known, np.array(names, dtype=object)[places])


def _date_part(seconds: np.ndarray, part: str) -> pa.Array:
    known = ~np.isnan(seconds)
    times = np.where(known, seconds, 0).astype("int64").astype("datetime64[s]")
    days = times.astype("datetime64[D]")
    values = {
        "year": times.astype("datetime64[Y]").astype(int) + 1970,
        "month": times.astype("datetime64[M]").astype(int) % 12 + 1,
        "weekday": (days.astype(int) + 3) % 7 + 1,  # 1970-01-01 was a Thursday; Monday is 1
        "hour": (times - days).astype(int) // 3600,
    }[part]
    return _labels(known, values.astype(str))


def _hashed(texts: pa.Array, buckets: int, where: str) -> pa.Array:
    if buckets < 2:
        raise SettingsError("hashing needs buckets", where=where, expected="2 or more", found=str(buckets))
    encoded = texts.dictionary_encode()
    places = [
        f"h{int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=8).digest(), 'big') % buckets}"
        for value in encoded.dictionary.to_pylist()
    ]
    return pc.take(pa.array(places, pa.string()), encoded.indices)


def _tags(column: pa.ChunkedArray, spec: FeatureSpec, where: str) -> pa.Array:
    cells = column.combine_chunks()
    if isinstance(cells, pa.ChunkedArray):  # no chunk at all
        cells = pa.array([], column.type)
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        lists = cells.cast(pa.list_(pa.string()))
    else:
        lists = pc.split_pattern(_texts(column, where), TAG_MARK).cast(pa.list_(pa.string()))
    if spec.min_count == 1:
        return lists
    owners, tags = pc.list_parent_indices(lists).to_numpy(), _rare_to_null(pc.list_flatten(lists), spec.min_count)
    known = tags.is_valid().to_numpy(zero_copy_only=False)
    ends = np.cumsum(np.bincount(owners[known], minlength=len(lists)))
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]).astype(np.int32)), tags.drop_null())


def _cross(given: pa.Table, made: dict[str, pa.ChunkedArray], spec: FeatureSpec, where: str) -> pa.Array:
    if len(spec.of) < 2:
        raise SettingsError("a cross needs two parts", where=where, expected='of = ["a", "b"]', found=str(spec.of))
    parts = []
    for name in spec.of:
        if name not in made and name not in given.column_names:
            raise _unknown(name, [*made, *given.column_names], where)
        parts.append(_texts(made[name] if name in made else given[name], where))
    return pc.binary_join_element_wise(*parts, CROSS_MARK)  # null where a part is null


def _rare_to_null(texts: pa.Array, least: int) -> pa.Array:
    if least == 1:
        return texts
    counts = pc.value_counts(texts)
    common = counts.field("values").filter(pc.greater_equal(counts.field("counts"), least))
    return pc.if_else(pc.is_in(texts, value_set=common, skip_nulls=True), texts, pa.scalar(None, pa.string()))


def _labels(known: np.ndarray, labels: Iterable[str]) -> pa.Array:
    return pa.array(list(labels), pa.string(), mask=~known)


def _unknown(name: str, names: Iterable[str], where: str) -> SettingsError:
    there = list(names)
    close = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    return SettingsError(
        f"no column {name!r}" if name else "a feature without a column",
        where=where,
        expected=", ".join(there) or "a table with columns",
        found=name or "nothing",
        next_step=f"did you mean {close[0]}?" if close else "name one of these columns",
    )
