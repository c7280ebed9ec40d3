"""Tables of users and items: ids and attribute columns as they are; what they become is decided in codes.py."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from training.data.cells import RowCheck
from training.data.files import RawTable
from training.data.raw import RawAttributes, TableReport
from training.data.rows import read_ids, require_columns, settle


def parse_attributes(table: RawTable, id_column: str, *, max_bad_share: float) -> tuple[RawAttributes, TableReport]:
    """Checks a table of users or items; where an id stands twice, its first row counts.

    Raises:
        DataError: The id column is missing or of a wrong type, or too many rows are bad.
    """
    require_columns(table.name, table.columns.column_names, [id_column])
    check = RowCheck(np.zeros(table.columns.num_rows, dtype=bool))
    ids = read_ids(table, id_column, check)
    reasons, first_bad = settle(table, check, max_bad_share)
    good = np.flatnonzero(~check.bad)
    _, first = np.unique(ids.codes[good], return_index=True)
    rows = good[np.sort(first)]
    if len(rows) < len(good):
        reasons = {**reasons, f"repeated {id_column}": len(good) - len(rows)}
    unnamed = [name for name in table.columns.column_names if not name.strip()]  # an exported row number, mostly
    columns = table.columns.drop_columns([id_column, *unnamed]).take(pa.array(rows)).combine_chunks()
    attributes = RawAttributes(ids.ids.take(pa.array(ids.codes[rows])), columns)
    return attributes, TableReport(table.name, table.rows_read, reasons, first_bad, tuple(unnamed))
