"""The rules of ``clean`` for events larger than memory: passes over columns in time order, a block at a time.

What needs all events of a user at once, one event per (user, item), is done for ranges of users that fit memory: each
event is appended to the file of its user's range.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.columns import ColumnWriter, blocks, counts_of, scratch
from core.dataset import EVENT_COLUMNS, SPLITS, column_file
from core.kinds import kind_weights as weights_of_kinds
from core.sections import DataSettings
from training.data.clean import first_split_newest, interpolate, split_by_time
from training.data.encode import name_kinds, order_vocabulary, scale_values
from training.data.gather import Gathered
from training.data.prepare import Prepared, facts_of
from training.data.raw import RawAttributes
from training.data.selection import check_train_events, outside_k_core

RANGE_ROWS = 1 << 20
"""About the events of a range of users, and so what the search for repeats holds in memory."""
MOST_RANGES = 512
"""Files that are open at once; above it ranges grow."""
TRAIN = SPLITS.index("train")


def prepare_large(
    events: Gathered,
    users: RawAttributes | None,
    items: RawAttributes | None,
    settings: DataSettings,
    kind_weights: Mapping[str, float],
    folder: Path,
) -> Prepared:
    """As :func:`training.data.prepare.prepare_events`; ``folder`` takes what does not fit memory."""
    selection = _select(events, settings, kind_weights, folder)
    counts = _count(events, selection)
    if counts.splits.sum() == 0:
        raise outside_k_core(settings, int(len(events) - selection.dropped.get(REPEAT, 0)))
    check_train_events(counts.splits)
    user_rows = order_vocabulary(events.user_ids, counts.users, counts.train_users, users)
    item_rows = order_vocabulary(events.item_ids, counts.items, counts.train_items, items)
    known, mean, std = _moments(events, selection, folder)
    names, codes = name_kinds(events.kind_texts, np.flatnonzero(counts.kinds))
    facts = facts_of(
        users=len(user_rows.ids),
        items=len(item_rows.ids),
        split_counts=counts.splits,
        boundaries=selection.boundaries,
        has_times=events.timestamps is not None,
        has_values=known,
        value_mean=mean,
        value_std=std,
        kinds=names,
    )
    rows = _Rows(user_rows.row_of_code, item_rows.row_of_code, codes, mean, std)
    return Prepared(
        user_rows.ids, item_rows.ids, selection.dropped, facts, lambda target: _write(events, selection, rows, target)
    )


REPEAT, OUTSIDE = "repeat of a (user, item)", "outside the k-core"


@dataclass(frozen=True)
class _Selected:
    kept: np.ndarray  # bool (events,)
    splits: np.ndarray  # uint8 (events,)
    boundaries: tuple[float, float] | None
    dropped: dict[str, int]


def _select(events: Gathered, settings: DataSettings, kind_weights: Mapping[str, float], folder: Path) -> _Selected:
    boundaries = None
    splits = events.splits
    if splits is None:
        if events.timestamps is None:
            raise ValueError("events need times or splits")
        boundaries = interpolate(events.timestamps, (settings.train_until, settings.valid_until))
        splits = scratch(folder, len(events), np.uint8)
        for part in blocks(events.timestamps, splits):
            splits[part] = split_by_time(events.timestamps[part], boundaries)
    table = weights_of_kinds(("", *events.kind_texts), kind_weights)[1:] if kind_weights else None
    kept = scratch(folder, len(events), np.bool_)
    kept[:] = False
    _keep_once(events, splits, table if events.kinds is not None else None, kept, folder)
    single = int(np.count_nonzero(kept))
    _keep_core(events, kept, settings)
    dropped = {REPEAT: len(events) - single, OUTSIDE: single - int(np.count_nonzero(kept))}
    return _Selected(kept, splits, boundaries, {reason: count for reason, count in dropped.items() if count})


def _keep_once(
    events: Gathered, splits: np.ndarray, strengths: np.ndarray | None, kept: np.ndarray, folder: Path
) -> None:
    """Marks one event of each (user, item), range by range."""
    counts = counts_of(events.users, len(events.user_ids))
    rows = max(RANGE_ROWS, -(-len(events) // MOST_RANGES))
    range_of_user = ((np.cumsum(counts) - counts) // rows).astype(np.int16)  # numpy sorts 16 bits by counting
    fields = [("place", "<i8"), ("user", "<i4"), ("item", "<i4"), ("split", "u1")]
    kinds = events.kinds if strengths is not None else None
    record = np.dtype(fields if kinds is None else [*fields, ("kind", "<i4")])
    paths = [folder / f"range-{number}" for number in range(int(range_of_user.max(initial=-1)) + 1)]
    columns = [column for column in (events.users, events.items, splits, kinds) if column is not None]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for part in blocks(*columns):
            ranges = range_of_user[events.users[part]]
            order = np.argsort(ranges, kind="stable")
            records = np.empty(len(order), record)
            records["place"], records["user"] = part.start + order, events.users[part][order]
            records["item"], records["split"] = events.items[part][order], splits[part][order]
            if kinds is not None:
                records["kind"] = kinds[part][order]
            ends = np.searchsorted(ranges[order], np.arange(len(files) + 1))
            for file, start, end in zip(files, ends[:-1], ends[1:], strict=True):
                file.write(records[start:end].data)
    for path in paths:
        records = np.fromfile(path, record)
        path.unlink()
        if not len(records):  # a user with more events than a range, or none
            continue
        pairs = records["user"].astype(np.int64) * len(events.item_ids) + records["item"]
        weights = None if strengths is None else strengths[records["kind"]]
        kept[records["place"][first_split_newest(pairs, records["split"], weights)]] = True


def _keep_core(events: Gathered, kept: np.ndarray, settings: DataSettings) -> None:
    """Drops what lies outside the k-core, see :func:`training.data.clean.k_core`."""
    least_user, least_item = settings.min_user_events, settings.min_item_events
    changed = max(least_user, least_item) > 1
    while changed:
        users, items = np.zeros(len(events.user_ids), np.int64), np.zeros(len(events.item_ids), np.int64)
        for part in blocks(events.users, events.items, kept):
            users += np.bincount(events.users[part][kept[part]], minlength=len(users))
            items += np.bincount(events.items[part][kept[part]], minlength=len(items))
        changed = False
        for part in blocks(events.users, events.items, kept):
            stays = kept[part] & (users[events.users[part]] >= least_user) & (items[events.items[part]] >= least_item)
            if not np.array_equal(stays, kept[part]):
                kept[part], changed = stays, True


@dataclass
class _Counts:
    users: np.ndarray
    items: np.ndarray
    train_users: np.ndarray
    train_items: np.ndarray
    splits: np.ndarray
    kinds: np.ndarray


def _count(events: Gathered, selection: _Selected) -> _Counts:
    """How often each code occurs among the events that are kept."""
    sizes = (len(events.user_ids), len(events.item_ids))
    users, items, train_users, train_items = (np.zeros(size, np.int64) for size in sizes * 2)
    counts = _Counts(
        users, items, train_users, train_items,
        np.zeros(len(SPLITS), np.int64), np.zeros(len(events.kind_texts), np.int64),
    )  # fmt: skip
    kinds = () if events.kinds is None else (events.kinds,)
    for part in blocks(events.users, events.items, selection.kept, selection.splits, *kinds):
        kept = selection.kept[part]
        splits = selection.splits[part][kept]
        is_train = splits == TRAIN
        for codes, all_counts, train_counts in (
            (events.users[part][kept], users, train_users),
            (events.items[part][kept], items, train_items),
        ):
            all_counts += np.bincount(codes, minlength=len(all_counts))
            train_counts += np.bincount(codes[is_train], minlength=len(train_counts))
        counts.splits += np.bincount(splits, minlength=len(SPLITS))
        for column in kinds:
            counts.kinds += np.bincount(column[part][kept], minlength=len(counts.kinds))
    return counts


def _moments(events: Gathered, selection: _Selected, folder: Path) -> tuple[bool, float, float]:
    """Whether a value is known, mean and deviation of the train values: to the bit what numpy gives for one array."""
    values = events.values
    if values is None:
        return False, 0.0, 0.0
    known, path = False, folder / "train_values.npy"
    with closing(ColumnWriter(path, np.float64)) as writer:
        for part in blocks(values, selection.kept, selection.splits):
            kept = selection.kept[part] & np.isfinite(values[part])
            known = known or bool(kept.any())
            writer.append(values[part][kept & (selection.splits[part] == TRAIN)])
    train = np.load(path, mmap_mode="r+") if writer.rows else np.zeros(0)
    if not len(train):
        return known, 0.0, 0.0
    mean = float(train.mean())
    for part in blocks(train):
        train[part] -= mean
        train[part] *= train[part]
    std = float(np.sqrt(train.sum() / len(train)))
    del train
    path.unlink()
    return known, mean, std


@dataclass(frozen=True)
class _Rows:
    row_of_user: np.ndarray
    row_of_item: np.ndarray
    code_of_kind: np.ndarray
    mean: float
    std: float


def _write(events: Gathered, selection: _Selected, rows: _Rows, folder: Path) -> None:
    sources = (events.users, events.items, events.timestamps, events.values, events.kinds)
    there = [column for column in (*sources, selection.splits, selection.kept) if column is not None]
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(closing(ColumnWriter(folder / column_file(name), dtype)))
            for name, dtype in EVENT_COLUMNS.items()
        }
        for part in blocks(*there):
            kept = selection.kept[part]
            count = int(np.count_nonzero(kept))
            raw = np.full(count, np.nan, np.float32) if events.values is None else events.values[part][kept]
            cells = {
                "user_row": rows.row_of_user[events.users[part][kept]],
                "item_row": rows.row_of_item[events.items[part][kept]],
                "timestamp": np.zeros(count) if events.timestamps is None else events.timestamps[part][kept],
                "value": scale_values(raw, rows.mean, rows.std),
                "raw_value": raw,
                "split": selection.splits[part][kept],
                "kind": np.zeros(count, np.uint8)
                if events.kinds is None
                else rows.code_of_kind[events.kinds[part][kept]],
            }
            for name, writer in writers.items():
                writer.append(cells[name])
