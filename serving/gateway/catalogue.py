"""What the gateway knows of a release by itself: items, titles, popularity and what users have seen."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.ensembles import MODEL_SEPARATOR
from core.errors import ReleaseError
from core.tensors import CONTEXT, ENSEMBLE, RESPOND
from serving.history import SqliteHistoryStore, open_history
from serving.lint import CONFIG_FILE, read_config
from serving.messages import RecommendedItem
from serving.release import RELEASE_FILE, VERSION_NAME, ReleaseInfo, read_release
from serving.state import HISTORY_FILE, Catalogue, read_titles

MOST_RELEASES = 4
MOST_USERS_SHOWN = 24


@dataclass(frozen=True)
class ReleaseView:
    """One installed release.

    Attributes:
        info: What it is.
        item_ids: Item ids, most popular first; what its rules exclude is left out. Ties go to the lower row.
        counts: Events of each of them.
        titles: Item id to title, where the release has titles.
        row_ids: Item ids by row.
        store: Its users' histories.
    """

    info: ReleaseInfo
    item_ids: tuple[str, ...]
    counts: tuple[float, ...]
    titles: dict[str, str]
    row_ids: np.ndarray
    store: SqliteHistoryStore

    def knows(self, user_id: str) -> bool:
        """Whether the release has a history of this user."""
        return len(self.store.lookup([user_id]).histories[0]) > 0

    def seen(self, user_id: str) -> set[str]:
        """Items of the user's history in the release."""
        history = self.store.lookup([user_id]).histories[0]
        return set(self.row_ids[history.item_rows].tolist())

    def popular(self, k: int, without: Collection[str]) -> list[RecommendedItem]:
        """The k most popular items that are not in ``without``; their scores are counts."""
        found: list[RecommendedItem] = []
        for item, count in zip(self.item_ids, self.counts, strict=True):
            if len(found) == k:
                break
            if item not in without:
                found.append(RecommendedItem(item, count, len(found) + 1, ()))
        return found

    def some_users(self) -> list[str]:
        """A few users for the demo page, spread evenly."""
        users = self.store.user_ids()
        step = max(1, len(users) // MOST_USERS_SHOWN)
        return users[::step][:MOST_USERS_SHOWN]


def open_view(repository: Path, release_id: str | None) -> ReleaseView:
    """Reads an installed release.

    Args:
        repository: The live model repository.
        release_id: Which; None is the one that the alias ``recommend`` serves.

    Raises:
        ReleaseError: It is not installed, or not whole.
    """
    info, ensemble = _find(repository, release_id)
    respond = _leaf(ensemble, RESPOND.name)
    catalogue = Catalogue.read(respond)
    allowed = np.ones(len(catalogue.items), bool) if catalogue.excluded is None else ~catalogue.excluded
    order = np.argsort(-catalogue.counts, kind="stable")
    order = order[allowed[order]]
    ids = np.asarray(catalogue.items.ids, dtype=object)
    return ReleaseView(
        info,
        tuple(map(str, ids[order])),
        tuple(map(float, catalogue.counts[order])),
        read_titles(respond),
        ids,
        open_history(_leaf(ensemble, CONTEXT.name) / HISTORY_FILE),
    )


class Views:
    """Releases as they are asked for, the newest few kept open."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._views: dict[str, ReleaseView] = {}
        self._live: tuple[tuple[int, int, int], str] | None = None

    def get(self, release_id: str) -> ReleaseView | None:
        """The release, None where it is not installed."""
        view = self._views.get(release_id)
        if view is None:
            try:
                view = open_view(self._repository, release_id)
            except (ReleaseError, OSError):
                return None
            self._views[release_id] = view
            while len(self._views) > MOST_RELEASES:
                self._views.pop(next(iter(self._views))).store.close()
        return view

    def live(self) -> ReleaseView | None:
        """The release of the alias: what Triton serves where there is no pointer.

        The alias' config is read again only where it was replaced: every request without a pointer asks.
        """
        try:
            status = (self._repository / ENSEMBLE.name / CONFIG_FILE).stat()
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._live is None or self._live[0] != mark:
                self._live = (mark, _find(self._repository, None)[0].release_id)
            return self.get(self._live[1])
        except (ReleaseError, OSError):
            return None

    def close(self) -> None:
        """Frees the files."""
        for view in self._views.values():
            view.store.close()
        self._views.clear()


def _find(repository: Path, release_id: str | None) -> tuple[ReleaseInfo, Path]:
    """A release, and the folder of an ensemble that serves it."""
    if release_id is None:
        from serving.activate import live_release

        live = live_release(repository)
        if live is None:
            raise ReleaseError("nothing is installed", where=str(repository), next_step="conch release")
        return live, repository / ENSEMBLE.name
    for folder in _version_folders(repository):
        info = read_release(folder)
        if info.release_id == release_id:
            return info, folder.parent
    raise ReleaseError("this release is not installed", where=str(repository), expected=release_id)


def _leaf(ensemble: Path, name: str) -> Path:
    """The version folder of a step: a leaf of another shape than that of the releases before lies under a longer name
    (``context.e6796a34``)."""
    for step in read_config(ensemble).ensemble_scheduling.step:
        if step.model_name.partition(MODEL_SEPARATOR)[0] == name:
            return ensemble.parent / step.model_name / str(step.model_version)
    raise ReleaseError("the ensemble lacks a step", where=str(ensemble), expected=name)


def _version_folders(repository: Path) -> Iterable[Path]:
    for model in sorted(repository.glob(f"{ENSEMBLE.name}*")):
        for folder in sorted(model.iterdir()):
            if VERSION_NAME.fullmatch(folder.name) and (folder / RELEASE_FILE).is_file():
                yield folder


def events_until_ms(info: ReleaseInfo) -> int:
    """Events up to here are in the release's histories; 0 where it does not say."""
    found = info.facts.get("events_until_ms", 0)
    return int(found) if isinstance(found, int | float) else 0
