"""Why an event is in quarantine."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Reason codes: in acknowledgements, in the quarantine table, in metrics and reports."""

    SCHEMA = "schema"
    """Does not parse: not UTF-8, not JSON, unknown or missing field, newer schema, NaN, too long."""
    ID_CONFLICT = "id_conflict"
    """The id is taken by a different event; the first one stays."""
    FUTURE = "future"
    """Happened later than the server's clock allows."""
    TOO_OLD = "too_old"
    """Happened longer ago than the store takes."""
    ORPHAN = "orphan"
    """Answers no impression: no request id, or none of that id ever came."""
    FORGED_TOKEN = "forged_token"
    """Token missing, or not signed by us for this user and request."""
    EXPIRED_TOKEN = "expired_token"
    """Token signed by us, and too late."""
    NOT_SHOWN = "not_shown"
    """The impression is known, the item was not in its slate."""
    BOT_CAP = "bot_cap"
    """The user is above the number of events per day."""
    FORBIDDEN = "forbidden"
    """The sender may not do this, such as deleting a user without the right to."""
    CORRUPT = "corrupt"
    """Damaged on its way or on disk."""
