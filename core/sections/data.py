"""What is read and which features it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from core.sections.base import Section


class DataSettings(Section):
    source: str = "movielens-100k"
    """movielens-100k, movielens-1m, movielens-10m, movielens-20m, movielens-25m, movielens-32m, files, synthetic,
    fractal (MovieLens-100K expanded to any size)."""
    events: Path | None = None
    """source=files: CSV (.gz too) or Parquet with user_id, item_id, timestamp and optionally value, event, split; or a
    folder of Parquet files."""
    items: Path | None = None
    """source=files: optional table with item_id and any attribute columns."""
    users: Path | None = None
    """source=files: optional table with user_id and any attribute columns."""
    title_column: str = "title"
    """Item column shown to people; the id is shown where it is missing."""
    text_columns: tuple[str, ...] = ()
    """Item columns of prose that content vectors are made from; empty takes the title."""
    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Bad rows are dropped and counted up to this share of the file; above it the file is refused."""
    min_user_events: int = Field(1, ge=1)
    """k-core: users with fewer events are dropped, repeatedly with min_item_events."""
    min_item_events: int = Field(1, ge=1)
    """k-core: items with fewer events are dropped."""
    train_until: float = Field(0.8, gt=0, lt=1)
    """Quantile of time that ends the train split."""
    valid_until: float = Field(0.9, gt=0, lt=1)
    """Quantile of time that ends the valid split; later events are test."""
    synthetic_users: int = Field(0, ge=0)
    """0 takes one user per 40 events."""
    synthetic_items: int = Field(0, ge=0)
    """0 takes as many as suit the events: 500 for 50 thousand, 2,236 for a million."""
    synthetic_events: int = Field(50_000, ge=10)
    fractal_events: int = Field(1_000_000, ge=100_000)
    """About how many events source=fractal makes."""
    seed: int = 0
    """Seed of the synthetic generators."""
    out_of_core_events: int = Field(20_000_000, ge=0)
    """source=files: files with more events (text files by their size) are read in parts, sorted and cleaned on disk and
    read memory-mapped by training; so are all folders and source=fractal."""
    sort_memory_mb: int = Field(2_048, ge=128)
    """What the sort on disk may hold in memory; what is beyond it costs writing and reading once more."""
    sort_threads: int = Field(0, ge=0)
    """Threads of that sort; 0 takes all cores."""


Statistic = Literal["popularity", "recent_popularity", "returning_popularity", "trend", "age", "mean_value"]


class FeatureSpec(Section):
    """One attribute made from the columns of a table, see training/data/derive.py."""

    column: str = ""
    """Column it is read from; empty for a cross."""
    name: str = ""
    """Its name; the column's, or the parts' joined by " x ", when empty."""
    kind: Literal["auto", "category", "tags", "number", "year", "date", "hash", "cross"] = "auto"
    """auto detects as without a spec; year finds one in a text (Toy Story (1995)); hash is for huge vocabularies."""
    buckets: int = Field(10, ge=0)
    """number, year: how many; 0 takes each value as it is. hash: how many."""
    scale: Literal["quantile", "linear", "log"] = "quantile"
    """number, year: buckets hold equally many rows, or are equally wide, or equally wide in log(1 + value)."""
    edges: tuple[float, ...] = ()
    """number, year: bounds between buckets, ascending, instead of ``buckets``."""
    part: Literal["year", "month", "weekday", "hour"] = "year"
    """date: which part of a time (UTC)."""
    min_count: int = Field(1, ge=1)
    """Values in fewer rows are unknown."""
    of: tuple[str, ...] = ()
    """cross: two or more columns, or names of specs before this one; tags cannot be crossed."""


class FeatureSettings(Section):
    """Which columns are used, and how. Without specs every column is used as what it looks like."""

    items: tuple[FeatureSpec, ...] = ()
    """Item attributes, for example {column = "title", kind = "year", buckets = 8}; all columns when empty."""
    users: tuple[FeatureSpec, ...] = ()
    """User attributes; all columns when empty."""
    skip_items: tuple[str, ...] = ()
    """Item attributes that are not used, by name."""
    skip_users: tuple[str, ...] = ()
    """User attributes that are not used, by name."""
    statistics: tuple[Statistic, ...] = get_args(Statistic)
    """Item columns made from the events that the ranker uses."""


class EventSettings(Section):
    """Kinds of events (the column ``event`` of the data), see core/kinds.py; shared by all models."""

    kind_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """How much an event of each kind counts, 1 where not named: {purchase = 5.0, click = 0.5}, or one by one with
    --set events.kind_weights.purchase=5. "unknown" names events without a kind, the items of a running session among
    them. Of several kinds on one (user, item) pair the dataset keeps the one that counts most, its newest event."""
    target_kinds: tuple[str, ...] = ()
    """Kinds that training asks gat for, such as ["purchase"]; empty asks for all, by their weights. The others are
    still part of the histories."""
