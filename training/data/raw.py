"""What every source hands over: well-formed events and attributes, ids still as text, nothing filtered yet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class IdColumn:
    """A column of external ids, each distinct text once.

    Attributes:
        codes: int32 ``(events,)``, places in ``ids``.
        ids: Distinct ids as text; some may be without a code.
    """

    codes: np.ndarray
    ids: pa.Array


@dataclass(frozen=True)
class RawEvents:
    """Events in the order of the source.

    Attributes:
        users: Who.
        items: What.
        timestamps: Seconds since the epoch, float64 ``(events,)``; None where the data has no time.
        values: float32 ``(events,)``, NaN where unknown; None where the data has no values.
        splits: uint8 codes of ``core.dataset.SPLITS`` ``(events,)``; None where time decides.
        kinds: The ``event`` column as a dictionary array; None where the data has none.
    """

    users: IdColumn
    items: IdColumn
    timestamps: np.ndarray | None
    values: np.ndarray | None
    splits: np.ndarray | None = None
    kinds: pa.DictionaryArray | None = None

    def __len__(self) -> int:
        return len(self.users.codes)


@dataclass(frozen=True)
class RawAttributes:
    """Attributes of users or items, each id once.

    Attributes:
        ids: Text ``(n,)``.
        columns: Attribute columns ``(n,)``, without the id.
    """

    ids: pa.Array
    columns: pa.Table


@dataclass(frozen=True)
class TableReport:
    """What reading one table found.

    Attributes:
        name: The file or source.
        rows_read: Rows, header not counted.
        dropped: Rows dropped per reason.
        first_bad_row: The first of them, in the words of an error; None where all rows are good.
        ignored_columns: Columns that Conch does not read.
    """

    name: str
    rows_read: int
    dropped: dict[str, int] = field(default_factory=dict)
    first_bad_row: str | None = None
    ignored_columns: tuple[str, ...] = ()
