"""Who asks, whether they may, and how often."""

from __future__ import annotations

import math

from starlette.requests import Request

from serving.gateway.keys import ApiKey
from serving.gateway.parts import Gateway
from serving.gateway.problems import Problem

KEY_HEADER = "x-api-key"


def admit(request: Request, gateway: Gateway, scope: str) -> None:
    """Lets a request pass. Raises Problem: 401 without a usable key, 403 without the scope, 429 too often.

    The operator's scope always needs a key; the others do where ``gateway.require_keys`` is set.
    """
    key = _key(request, gateway)
    address = request.client.host if request.client else "unknown"
    wait_s = gateway.rates.wait_s(f"key {key.name}" if key else f"address {address}")
    if wait_s > 0:
        raise Problem(429, "too many requests", retry_after_s=math.ceil(wait_s))
    if key is None:
        if scope == "operator" or gateway.settings.require_keys:
            raise Problem(401, "an API key is needed", where="X-API-Key")
    elif scope not in key.scopes:
        raise Problem(403, "this key may not do that", expected=f"a key with the scope {scope}")


def _key(request: Request, gateway: Gateway) -> ApiKey | None:
    given = request.headers.get(KEY_HEADER)
    if given is None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if kind.lower() == "bearer" else None
    if given is None:
        return None
    key = gateway.wiring.api_keys.find(given)
    if key is None:
        address = request.client.host if request.client else "unknown"
        wait_s = gateway.rates.wait_s(f"refused {address}")  # guessing is slow
        if wait_s > 0:
            raise Problem(429, "too many requests", retry_after_s=math.ceil(wait_s))
        raise Problem(401, "this API key is not known", where="X-API-Key")
    return key
