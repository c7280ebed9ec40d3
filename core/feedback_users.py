"""Pseudonyms: the loop stores ``user_ref`` in place of the user's own id.

``user_ref = "u1_" + first 32 hex digits of HMAC-SHA256(key, user id)``. Who has no key cannot link a pseudonym to a
person; who has it computes the pseudonym again, nobody stores the way back. One key for the life of the data: a new key
makes new users of everybody.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence

PREFIX = "u1_"
DIGITS = 32
PATTERN = re.compile(rf"^{PREFIX}[0-9a-f]{{{DIGITS}}}$")


def user_ref(user_id: str, key: bytes) -> str:
    """The pseudonym of one user.

    Args:
        user_id: External id; already a pseudonym, it is hashed once more.
        key: At least 32 random bytes.
    """
    return PREFIX + hmac.digest(key, user_id.encode("utf-8", "surrogatepass"), "sha256").hex()[:DIGITS]


def user_refs(user_ids: Sequence[str] | Iterable[str], key: bytes) -> list[str]:
    """Pseudonyms of many users, in their order."""
    return [user_ref(user_id, key) for user_id in user_ids]


def is_user_ref(text: str) -> bool:
    """Whether ``text`` has the form of a pseudonym."""
    return PATTERN.fullmatch(text) is not None
