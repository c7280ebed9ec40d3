"""Deleting a user: at once from everything that is read live, and from sealed segments at the next upkeep."""

from __future__ import annotations

import sqlite3


def forget_user(database: sqlite3.Connection, user_ref: str, seq: int) -> None:
    """Inside a transaction: everything of this user that came before ``seq`` goes.

    The ids stay (they say nothing about anybody): a late copy of a deleted event must not bring it back. So does the
    pseudonym: what other data holds of this user is left out of every training from now on.
    """
    for table in ("events", "recent", "corrections", "daily", "quarantine"):
        database.execute(f"DELETE FROM {table} WHERE user_ref = ?", (user_ref,))
    database.execute("INSERT OR REPLACE INTO deleted VALUES (?, ?)", (user_ref, seq))
    database.execute("INSERT OR IGNORE INTO forgotten VALUES (?)", (user_ref,))
