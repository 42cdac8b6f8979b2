"""GET from a provider, bounded: in time, in bytes, and to the address that was asked."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

import aiohttp

from meter.errors import InvalidAmount, ProviderUnavailable, UnreadableRecord
from meter.money import picos_from_decimal
from meter.sealing import SecretText

# A longer wait is cut to this; callers have a backoff of their own.
MAX_RETRY_AFTER_S: Final = 3_600
_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer of a provider, with one of the statuses that the caller understands."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one exchange: time in seconds and bytes of the answer."""

    timeout_s: float
    body_bytes: int


ToHeaders = Callable[[SecretText], Mapping[str, str]]
"""Returns the headers that present a key."""


def bearer(key: SecretText) -> Mapping[str, str]:
    """Present a key as a bearer token."""
    return {"authorization": f"Bearer {key.reveal()}"}


async def fetch(
    session: aiohttp.ClientSession,
    base_url: str,
    path: str,
    key: SecretText | None,
    bounds: Bounds,
    understood: Collection[int] = (200, 404),
    to_headers: ToHeaders = bearer,
    **query: str,
) -> Fetched:
    """GET one path below the provider's base.

    Redirects are not followed: the key goes to the address that was asked, and to no other.
    Raises ProviderUnavailable for a status that is not `understood` (with `retry_after_s` where
    the answer has it), when the answer does not come in time, or when it is too large.
    """
    headers = {} if key is None else to_headers(key)
    try:
        async with session.get(
            f"{base_url}{path}",
            params=query,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=bounds.timeout_s),
            allow_redirects=False,
        ) as response:
            if response.status not in understood:
                retry_after_s = read_retry_after(response.headers.get("retry-after"))
                raise ProviderUnavailable(f"GET {path} answered {response.status}", retry_after_s)
            body = bytearray()
            while not response.content.at_eof():
                # One byte more than allowed is asked for, to see whether there are more.
                body += await response.content.read(bounds.body_bytes + 1 - len(body))
                if len(body) > bounds.body_bytes:
                    raise ProviderUnavailable(
                        f"GET {path} answered more than {bounds.body_bytes} bytes"
                    )
            return Fetched(response.status, bytes(body))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ProviderUnavailable(f"GET {path} failed ({type(error).__name__})") from error


def read_retry_after(text: str | None) -> float | None:
    """Return the seconds to wait; None where the header is absent or has no number of seconds."""
    if text is None or _SECONDS.fullmatch(text.strip()) is None:
        return None
    return float(min(int(text), MAX_RETRY_AFTER_S))


def read_members(body: bytes, path: str) -> dict[str, Any]:
    """Return the object `data` of a reply, with exact numbers. Raises ProviderUnavailable."""
    try:
        members = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)["data"]
    except (ValueError, KeyError, TypeError, RecursionError, InvalidOperation) as error:
        raise ProviderUnavailable(f"GET {path} answered what cannot be read") from error
    if not isinstance(members, dict):
        raise ProviderUnavailable(f"GET {path} answered what cannot be read")
    return members


def read_usd(number: object, path: str) -> Decimal:
    """Return an amount in US dollars that fits the books. Raises UnreadableRecord otherwise."""
    if isinstance(number, int | Decimal) and not isinstance(number, bool) and number >= 0:
        usd = Decimal(number)
        try:
            picos_from_decimal(usd)
        except InvalidAmount:
            pass
        else:
            return usd
    raise UnreadableRecord(f"GET {path} named no cost that can be read")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
