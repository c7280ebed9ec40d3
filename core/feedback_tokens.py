"""Impression tokens: what lets a click prove that we showed this slate to this user.

``1.<expiry, hex seconds>.<slate digest>.<signature>``: the digest is 16 bytes of blake2b over the items in order, the
signature HMAC-SHA256 over version, request id, user pseudonym, expiry and digest. Nothing is stored to verify one, and
every part has one spelling. Replaying a token gains nothing: events are unique by id, and labels take one answer per
(request, item).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from core.feedback_reasons import Reason

VERSION = "1"


@dataclass(frozen=True)
class TokenKeys:
    """Keys of tokens, newest first: the first signs, all verify, so that a key can be changed without losing clicks."""

    keys: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not self.keys or any(len(key) < 32 for key in self.keys):
            raise ValueError("tokens need at least one key of at least 32 bytes")


def slate_digest(items: Sequence[str]) -> str:
    """Digest of a slate: the items in order. 22 characters."""
    # Length before text: ["ab", "c"] and ["a", "bc"] must differ.
    joined = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (item.encode() for item in items))
    return _text(hashlib.blake2b(joined, digest_size=16).digest())


def issue_token(keys: TokenKeys, request_id: str, user_ref: str, items: Sequence[str], expires_s: int) -> str:
    """A token for one slate.

    Args:
        keys: The first one signs.
        request_id: Of the impression.
        user_ref: Pseudonym of the user.
        items: The slate, best first.
        expires_s: Seconds since the epoch after which no event is taken.
    """
    expiry, digest = f"{expires_s:x}", slate_digest(items)
    return f"{VERSION}.{expiry}.{digest}.{_signature(keys.keys[0], request_id, user_ref, expiry, digest)}"


def check_token(
    keys: TokenKeys,
    token: str | None,
    request_id: str,
    user_ref: str,
    now_s: float,
    items: Sequence[str] | None = None,
) -> Reason | None:
    """None for a good token, else why it is refused. Signatures are compared in constant time.

    Args:
        keys: All of them verify.
        token: As the client sent it.
        request_id: That the event names.
        user_ref: That the event names.
        now_s: Seconds since the epoch, the server's clock.
        items: The slate, where the caller has it: it must be the one that was signed.
    """
    parts = (token or "").split(".")
    if len(parts) != 4 or parts[0] != VERSION or not token or not token.isascii():
        return Reason.FORGED_TOKEN
    _, expiry, digest, signature = parts
    signed = [
        hmac.compare_digest(_signature(key, request_id, user_ref, expiry, digest), signature) for key in keys.keys
    ]
    if not any(signed) or (items is not None and slate_digest(items) != digest):
        return Reason.FORGED_TOKEN
    # The signature holds, so we wrote the expiry ourselves: it parses.
    return Reason.EXPIRED_TOKEN if int(expiry, 16) < now_s else None


def _signature(key: bytes, request_id: str, user_ref: str, expiry: str, digest: str) -> str:
    message = "\n".join((VERSION, request_id, user_ref, expiry, digest)).encode()
    return _text(hmac.digest(key, message, "sha256"))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
