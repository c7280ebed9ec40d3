"""The context step: strings become rows. Used by Triton's model.py and by the local pipeline alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.codebook import NO_CODES, Codebook
from core.histories import Histories, PaddedHistories, UserHistory, pad
from core.tensors import EXCLUDE_ROWS, HISTORY_AGES, HISTORY_KINDS, HISTORY_ROWS, HISTORY_VALUES, USER_FEATURES
from core.vocabulary import Vocabulary
from serving.history import UserStates

Ids = Sequence[str]
NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Context:
    """Model inputs of a batch.

    Attributes:
        padded: Histories with the session in front, and what must not come back.
        features: int64 ``(B, F)``.
    """

    padded: PaddedHistories
    features: np.ndarray

    def tensors(self) -> dict[str, np.ndarray]:
        """By tensor name."""
        return {
            HISTORY_ROWS.name: self.padded.rows,
            HISTORY_AGES.name: self.padded.ages,
            HISTORY_VALUES.name: self.padded.values,
            HISTORY_KINDS.name: self.padded.kinds,
            EXCLUDE_ROWS.name: self.padded.exclude,
            USER_FEATURES.name: self.features,
        }


def build_context(
    states: UserStates,
    session_items: Sequence[Ids],
    exclude_items: Sequence[Ids],
    items: Vocabulary,
    always_excluded: np.ndarray = NO_ROWS,
    attributes: Sequence[Sequence[str]] = (),
    codebook: Codebook = NO_CODES,
) -> Context:
    """Puts sessions before histories and pads both.

    Session items count as the newest events, of age 0, with no value and of unknown kind: they stand before the
    history, an older event on the same item gives way, and like all seen items they do not come back.

    Args:
        states: What the history store knows of B users.
        session_items: Per user, external item ids, oldest first; "" and unknown ids are ignored, of repeats the
            newest counts.
        exclude_items: Per user, external item ids; "" and unknown ids are ignored.
        items: The catalogue.
        always_excluded: int64 ``(n,)``, rows that the rules keep out of every answer.
        attributes: Per user, ``name=value`` each, in place of what the store knows; none at all when empty. They
            live as long as the request: nothing of them is kept or logged.
        codebook: What the codes of the users' attributes mean.
    """
    histories = [
        _with_session(history, items, session) if any(session) else history
        for history, session in zip(states.histories, session_items, strict=True)
    ]
    excluded = [np.append(always_excluded, _known_rows(items, ids)) for ids in exclude_items]
    features = states.features
    if any(map(any, attributes)):
        pairs = zip(features, attributes, strict=True)
        features = np.stack([codebook.overlay(codes, given) if any(given) else codes for codes, given in pairs])
    return Context(pad(_joined(histories), len(items), excluded), features)


def _with_session(history: UserHistory, items: Vocabulary, session: Ids) -> UserHistory:
    newest_first = np.array(list(dict.fromkeys(_known_rows(items, session)[::-1].tolist())), dtype=np.int32)
    older = ~np.isin(history.item_rows, newest_first)
    now = history.timestamps[:1] if len(history) else np.zeros(1)
    return UserHistory(
        np.concatenate([newest_first, history.item_rows[older]]),
        np.concatenate([np.repeat(now, len(newest_first)), history.timestamps[older]]),
        np.concatenate([np.zeros(len(newest_first), np.float32), history.values[older]]),
        np.concatenate([np.zeros(len(newest_first), np.uint8), history.kinds[older]]),
    )


def _known_rows(items: Vocabulary, ids: Ids) -> np.ndarray:
    """Rows of the known ids, in order; "" is in no vocabulary."""
    if not any(ids):
        return NO_ROWS
    rows = items.rows(ids)
    return rows[rows >= 0]


def _joined(histories: list[UserHistory]) -> Histories:
    starts = np.zeros(len(histories) + 1, dtype=np.int64)
    np.cumsum([len(history) for history in histories], out=starts[1:])
    return Histories(
        starts,
        np.concatenate([history.item_rows for history in histories]),
        np.concatenate([history.timestamps for history in histories]),
        np.concatenate([history.values for history in histories]),
        np.concatenate([history.kinds for history in histories]),
    )
