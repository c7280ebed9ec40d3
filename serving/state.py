"""What the two python steps hold in memory, and how it lies in their version folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import write_json
from core.errors import ReleaseError
from core.features import FeatureTable
from core.histories import Histories
from core.vocabulary import Vocabulary
from serving.history import SqliteHistoryStore, open_history, write_history

VOCABULARY_FILE = "vocabulary.parquet"
HISTORY_FILE = "history.sqlite"
STATE_FILE = "state.json"


@dataclass(frozen=True)
class Catalogue:
    """The items of a release.

    Attributes:
        items: External ids in row order.
        counts: Events per item in the data that the models were fitted on, int64 ``(I,)``: popularity.
    """

    items: Vocabulary
    counts: np.ndarray

    def write(self, folder: Path) -> None:
        """Writes ``folder/vocabulary.parquet``."""
        table = pa.table(
            {"item_id": pa.array(self.items.ids, pa.string()), "events": pa.array(self.counts, pa.int64())}
        )
        pq.write_table(table, folder / VOCABULARY_FILE)

    @classmethod
    def read(cls, folder: Path) -> Catalogue:
        """Reads ``folder/vocabulary.parquet``.

        Raises:
            ReleaseError: No such file, or not such a table.
        """
        path = folder / VOCABULARY_FILE
        try:
            table = pq.read_table(path, columns=["item_id", "events"])
        except (OSError, pa.ArrowException) as error:
            raise ReleaseError("vocabulary cannot be read", where=str(path), found=str(error)) from None
        return cls(Vocabulary(table["item_id"].combine_chunks()), table["events"].to_numpy())


@dataclass(frozen=True)
class ContextState:
    """What the context step knows: which row each item has, and what each user did."""

    release_id: str
    items: Vocabulary
    store: SqliteHistoryStore

    def close(self) -> None:
        """Frees the history file."""
        self.store.close()


@dataclass(frozen=True)
class RespondState:
    """What the respond step knows.

    Attributes:
        release_id: Goes into every answer.
        item_ids: External ids by row, object ``(I + 1,)`` with "" last: the padding row has no name.
    """

    release_id: str
    item_ids: np.ndarray


def write_context_state(
    folder: Path,
    release_id: str,
    catalogue: Catalogue,
    users: Vocabulary,
    histories: Histories,
    features: FeatureTable,
) -> None:
    """Writes what the context step needs into its version folder.

    Args:
        folder: ``repository/context/<version>``, which exists.
        release_id: The release.
        catalogue: Its items.
        users: U users.
        histories: Their events in the data that the models were fitted on, as item rows of ``catalogue``.
        features: Their attribute codes.
    """
    catalogue.write(folder)
    write_history(folder / HISTORY_FILE, users, histories, features)
    _write_state(folder, release_id, catalogue)


def write_respond_state(folder: Path, release_id: str, catalogue: Catalogue) -> None:
    """Writes what the respond step needs into ``repository/respond/<version>``."""
    catalogue.write(folder)
    _write_state(folder, release_id, catalogue)


def read_context_state(folder: Path) -> ContextState:
    """Reads a context version folder. Raises ReleaseError where a file is missing or does not fit the others."""
    catalogue = Catalogue.read(folder)
    release_id = _read_state(folder, catalogue)
    return ContextState(release_id, catalogue.items, open_history(folder / HISTORY_FILE))


def read_respond_state(folder: Path) -> RespondState:
    """Reads a respond version folder. Raises ReleaseError where a file is missing or does not fit the others."""
    catalogue = Catalogue.read(folder)
    release_id = _read_state(folder, catalogue)
    return RespondState(release_id, np.append(catalogue.items.ids, ""))


def _write_state(folder: Path, release_id: str, catalogue: Catalogue) -> None:
    write_json(folder / STATE_FILE, {"release_id": release_id, "n_items": len(catalogue.items)})


def _read_state(folder: Path, catalogue: Catalogue) -> str:
    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_bytes())
        release_id, n_items = str(state["release_id"]), int(state["n_items"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError("state of the step cannot be read", where=str(path), found=repr(error)) from None
    if n_items != len(catalogue.items):
        raise ReleaseError(
            "vocabulary does not belong to this release",
            where=str(folder),
            expected=f"{n_items} items",
            found=f"{len(catalogue.items)} items",
        )
    return release_id
