"""Asks about our key: whether it works, and what was billed to it. OpenRouter's `GET /key`."""

from decimal import Decimal
from typing import Final

import aiohttp

from meter.errors import ProviderUnavailable
from meter.providers.fetching import Bounds, fetch, read_members, read_usd
from meter.providers.key_refusal import KeyRefusal
from meter.sealing import SecretText

PATH: Final = "/key"
_REFUSALS: Final = {
    401: "the key is unknown, disabled or revoked",
    402: "no credit is left",
    403: "the key may not be used",
}
BOUNDS: Final = Bounds(timeout_s=10.0, body_bytes=64 * 1024)


async def fetch_key_usage(
    session: aiohttp.ClientSession, base_url: str, key: SecretText
) -> Decimal:
    """Return the US dollars billed to this key since it was made.

    Raises ProviderUnavailable when the provider does not answer, or names no total.
    """
    fetched = await fetch(session, base_url, PATH, key, BOUNDS)
    if fetched.status != 200:
        raise ProviderUnavailable(f"GET {PATH} answered {fetched.status}")
    return read_key_usage(fetched.body)


async def check_key(
    session: aiohttp.ClientSession, base_url: str, key: SecretText | None
) -> KeyRefusal | None:
    """Return why the key does not work; None when it does. The question costs nothing.

    Raises ProviderUnavailable when the provider does not answer, or its answer cannot be read.
    """
    fetched = await fetch(session, base_url, PATH, key, BOUNDS, understood=(200, *_REFUSALS))
    if fetched.status in _REFUSALS:
        return KeyRefusal(fetched.status, _REFUSALS[fetched.status])
    left = read_members(fetched.body, PATH).get("limit_remaining")
    if isinstance(left, int | Decimal) and not isinstance(left, bool) and left <= 0:
        return KeyRefusal(402, "the limit of the key is used up")
    return None


def read_key_usage(body: bytes) -> Decimal:
    """Read the total. Raises ProviderUnavailable when there is none."""
    return read_usd(read_members(body, PATH).get("usage"), PATH)
