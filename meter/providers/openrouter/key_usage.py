"""Fetches the total that the provider billed to our key: OpenRouter's `GET /key`."""

from decimal import Decimal
from typing import Final

import aiohttp

from meter.errors import ProviderUnavailable
from meter.providers.fetching import Bounds, fetch, read_members, read_usd
from meter.sealing import SecretText

PATH: Final = "/key"
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


def read_key_usage(body: bytes) -> Decimal:
    """Read the total. Raises ProviderUnavailable when there is none."""
    return read_usd(read_members(body, PATH).get("usage"), PATH)
