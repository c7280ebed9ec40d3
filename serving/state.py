"""What the two python steps hold in memory, and how it lies in their version folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import write_json
from core.codebook import NO_CODES, Codebook
from core.errors import ReleaseError
from core.features import FeatureTable
from core.histories import Histories
from core.vocabulary import Vocabulary
from serving.context import NO_ROWS
from serving.history import SqliteHistoryStore, open_history, write_history
from serving.rerank import ItemTables, Reranker

VOCABULARY_FILE = "vocabulary.parquet"
HISTORY_FILE = "history.sqlite"
CODES_FILE = "user_codes.json"
STATE_FILE = "state.json"
RERANK_FILE = "rerank.npz"
USERS_FILE = "users.parquet"


@dataclass(frozen=True)
class Catalogue:
    """The items of a release.

    Attributes:
        items: External ids in row order.
        counts: Events per item in the data that the models were fitted on, int64 ``(I,)``: popularity.
        excluded: bool ``(I,)``, items that the rules keep out of every answer; None is none of them.
    """

    items: Vocabulary
    counts: np.ndarray
    excluded: np.ndarray | None = None
    titles: np.ndarray | None = None
    """What people read for each item, object ``(I,)``: written where given, read by ``read_titles`` alone."""

    def write(self, folder: Path) -> None:
        """Writes ``folder/vocabulary.parquet``."""
        excluded = np.zeros(len(self.items), dtype=bool) if self.excluded is None else self.excluded
        table = pa.table(
            {
                "item_id": pa.array(self.items.ids, pa.string()),
                "events": pa.array(self.counts, pa.int64()),
                "excluded": pa.array(excluded),
            }
        )
        if self.titles is not None:
            table = table.append_column("title", pa.array(self.titles, pa.string()))
        pq.write_table(table, folder / VOCABULARY_FILE)

    @classmethod
    def read(cls, folder: Path) -> Catalogue:
        """Reads ``folder/vocabulary.parquet``.

        Raises:
            ReleaseError: No such file, or not such a table.
        """
        path = folder / VOCABULARY_FILE
        try:
            table = pq.read_table(path, columns=["item_id", "events", "excluded"])
        except (OSError, pa.ArrowException) as error:
            raise ReleaseError("vocabulary cannot be read", where=str(path), found=str(error)) from None
        excluded = table["excluded"].to_numpy()
        return cls(Vocabulary(table["item_id"].combine_chunks()), table["events"].to_numpy(), excluded)


def read_titles(folder: Path) -> dict[str, str]:
    """Titles by item id of a version folder with a vocabulary; empty where the release has none.

    Raises:
        ReleaseError: No such file, or not such a table.
    """
    path = folder / VOCABULARY_FILE
    try:
        if "title" not in pq.read_schema(path).names:
            return {}
        table = pq.read_table(path, columns=["item_id", "title"])
    except (OSError, pa.ArrowException) as error:
        raise ReleaseError("vocabulary cannot be read", where=str(path), found=str(error)) from None
    pairs = zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True)
    return {item: title for item, title in pairs if title and title != item}


@dataclass(frozen=True)
class ContextState:
    """What the context step knows: which row each item has, what each user did, what attribute codes mean.

    Attributes:
        release_id: The release.
        items: The catalogue.
        excluded: int64 ``(n,)``, rows that no answer may hold.
        store: Users' histories.
        codebook: What the codes of the users' attributes mean.
    """

    release_id: str
    items: Vocabulary
    excluded: np.ndarray
    store: SqliteHistoryStore
    codebook: Codebook

    def close(self) -> None:
        """Frees the history file."""
        self.store.close()


@dataclass(frozen=True)
class RespondState:
    """What the respond step knows.

    Attributes:
        release_id: Goes into every answer.
        item_ids: External ids by row, object ``(I + 1,)`` with "" last: the padding row has no name.
        reranker: Variety and rules.
    """

    release_id: str
    item_ids: np.ndarray
    reranker: Reranker


@dataclass(frozen=True)
class UsersState:
    """What the last step of similar users knows.

    Attributes:
        release_id: Goes into every answer.
        users: The users of the release.
    """

    release_id: str
    users: Vocabulary

    @property
    def user_ids(self) -> np.ndarray:
        """External ids by row, object ``(U + 1,)`` with "" last."""
        return np.append(self.users.ids, "")


def write_context_state(
    folder: Path,
    release_id: str,
    catalogue: Catalogue,
    users: Vocabulary,
    histories: Histories,
    features: FeatureTable,
    codebook: Codebook = NO_CODES,
) -> None:
    """Writes what the context step needs into its version folder.

    Args:
        folder: ``repository/context/<version>``, which exists.
        release_id: The release.
        catalogue: Its items.
        users: U users.
        histories: Their events in the data that the models were fitted on, as item rows of ``catalogue``.
        features: Their attribute codes.
        codebook: What the codes mean, for attributes that come with a request.
    """
    catalogue.write(folder)
    write_history(folder / HISTORY_FILE, users, histories, features)
    codebook.save(folder / CODES_FILE)
    _write_state(folder, release_id, catalogue)


def write_respond_state(folder: Path, release_id: str, catalogue: Catalogue, reranker: Reranker | None = None) -> None:
    """Writes what the respond step needs into ``repository/respond/<version>``; without a reranker it knows none."""
    catalogue.write(folder)
    reranker = reranker or Reranker("none", 0.0, 1, ItemTables.empty(len(catalogue.items)))
    tables = reranker.tables
    np.savez(
        folder / RERANK_FILE,
        method=np.str_(reranker.method),
        diversity=np.float64(reranker.diversity),
        pool=np.int64(reranker.pool),
        vectors=tables.vectors.astype(np.float16),
        boosts=tables.boosts.astype(np.float32),
        groups=tables.groups.astype(np.int32),
        limits=tables.limits.astype(np.int32),
    )
    _write_state(folder, release_id, catalogue)


def write_catalogue_state(folder: Path, release_id: str, catalogue: Catalogue) -> None:
    """Writes what a step needs that knows the items alone, such as ``repository/rate_items/<version>``."""
    catalogue.write(folder)
    _write_state(folder, release_id, catalogue)


def write_users_state(folder: Path, release_id: str, users: Vocabulary) -> None:
    """Writes what the last step of similar users needs into ``repository/name_users/<version>``."""
    pq.write_table(pa.table({"user_id": pa.array(users.ids, pa.string())}), folder / USERS_FILE)
    write_json(folder / STATE_FILE, {"release_id": release_id, "n_users": len(users)})


def read_context_state(folder: Path) -> ContextState:
    """Reads a context version folder. Raises ReleaseError where a file is missing or does not fit the others."""
    catalogue = Catalogue.read(folder)
    release_id = _read_state(folder, catalogue)
    excluded = NO_ROWS if catalogue.excluded is None else np.flatnonzero(catalogue.excluded)
    try:
        codebook = Codebook.load(folder / CODES_FILE)
    except FileNotFoundError:  # a release from before requests could bring attributes
        codebook = NO_CODES
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(
            "attribute codes cannot be read", where=str(folder / CODES_FILE), found=repr(error)
        ) from None
    return ContextState(release_id, catalogue.items, excluded, open_history(folder / HISTORY_FILE), codebook)


def read_respond_state(folder: Path) -> RespondState:
    """Reads a respond version folder. Raises ReleaseError where a file is missing or does not fit the others."""
    catalogue = Catalogue.read(folder)
    release_id = _read_state(folder, catalogue)
    return RespondState(release_id, np.append(catalogue.items.ids, ""), _read_reranker(folder, len(catalogue.items)))


def read_catalogue_state(folder: Path) -> tuple[Catalogue, str]:
    """The items and the release id. Raises ReleaseError where a file is missing or does not fit the others."""
    catalogue = Catalogue.read(folder)
    return catalogue, _read_state(folder, catalogue)


def read_users_state(folder: Path) -> UsersState:
    """Reads a name_users version folder. Raises ReleaseError where a file is missing or does not fit the others."""
    path = folder / USERS_FILE
    try:
        users = Vocabulary(pq.read_table(path, columns=["user_id"])["user_id"].combine_chunks())
    except (OSError, pa.ArrowException) as error:
        raise ReleaseError("users cannot be read", where=str(path), found=str(error)) from None
    return UsersState(_read_state_of(folder, "n_users", len(users)), users)


def _read_reranker(folder: Path, n_items: int) -> Reranker:
    path = folder / RERANK_FILE
    try:
        with np.load(path, allow_pickle=False) as data:
            tables = ItemTables(*(data[name] for name in ("vectors", "boosts", "groups", "limits")))
            reranker = Reranker(str(data["method"]), float(data["diversity"]), int(data["pool"]), tables)  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ReleaseError("re-ranking tables cannot be read", where=str(path), found=repr(error)) from None
    lengths = {len(tables.vectors), len(tables.boosts), len(tables.groups)}
    if lengths != {n_items + 1}:
        raise ReleaseError(
            "re-ranking tables do not belong to this release",
            where=str(path),
            expected=f"{n_items + 1} rows",
            found=", ".join(map(str, sorted(lengths))),
        )
    return reranker


def _write_state(folder: Path, release_id: str, catalogue: Catalogue) -> None:
    write_json(folder / STATE_FILE, {"release_id": release_id, "n_items": len(catalogue.items)})


def _read_state(folder: Path, catalogue: Catalogue) -> str:
    return _read_state_of(folder, "n_items", len(catalogue.items))


def _read_state_of(folder: Path, key: str, found: int) -> str:
    """The release id of a step whose state says how many items or users it has."""
    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_bytes())
        release_id, expected = str(state["release_id"]), int(state[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError("state of the step cannot be read", where=str(path), found=repr(error)) from None
    if expected != found:
        noun = key.removeprefix("n_")
        raise ReleaseError(
            "vocabulary does not belong to this release",
            where=str(folder),
            expected=f"{expected} {noun}",
            found=f"{found} {noun}",
        )
    return release_id
