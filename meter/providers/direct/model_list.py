"""Reads `GET /models` in the shape of OpenAI, which is a free call that tries the key too."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp

from meter.errors import ProviderUnavailable
from meter.pricing.prices import WithheldModel
from meter.providers.fetching import Bounds, Fetched, ToHeaders, bearer, fetch
from meter.providers.key_refusal import KeyRefusal
from meter.providers.provider import OfferedCatalogue, UnpricedModel
from meter.sealing import SecretText

PATH: Final = "/models"
BOUNDS: Final = Bounds(timeout_s=20.0, body_bytes=16 * 1024 * 1024)
MAX_MODELS: Final = 20_000
# Leaves room for a prefix in the id of a model.
MAX_NAME_CHARS: Final = 140
# No model reads more: a larger number is an error of the provider.
MAX_TOKENS: Final = 2**40
# Names under which servers state the longest context of a model, in tokens.
_CONTEXT_MEMBERS: Final = ("context_length", "max_model_len", "context_window")
REFUSALS: Final[Mapping[int, str]] = {
    401: "the key is unknown, disabled or revoked",
    402: "no credit is left",
    403: "the key may not be used",
}

ReadName = Callable[[str], tuple[str, tuple[str, ...]]]
FetchCatalogue = Callable[
    [aiohttp.ClientSession, str, SecretText | None], Awaitable[OfferedCatalogue]
]
CheckKey = Callable[[aiohttp.ClientSession, str, SecretText | None], Awaitable[KeyRefusal | None]]


def listing_by(
    read_name: ReadName,
    refusals: Mapping[int, str] = REFUSALS,
    to_headers: ToHeaders = bearer,
    **query: str,
) -> FetchCatalogue:
    """Return the function that fetches a listing.

    `read_name` returns the provider's own name of a model, and the names under which OpenRouter
    may list the same model. `refusals` are the statuses that refuse a key, `to_headers` presents
    it, and `query` goes with the question.
    """

    async def fetch_catalogue(
        session: aiohttp.ClientSession, base_url: str, key: SecretText | None
    ) -> OfferedCatalogue:
        fetched = await _ask(session, base_url, key, refusals, to_headers, query)
        if fetched.status in refusals:
            raise ProviderUnavailable(
                f"GET {PATH} answered {fetched.status}: {refusals[fetched.status]}"
            )
        return read_listing(fetched.body, read_name)

    return fetch_catalogue


def checking_by(refusals: Mapping[int, str] = REFUSALS, to_headers: ToHeaders = bearer) -> CheckKey:
    """Return the function that says why a key does not work; None when it does.

    The question costs nothing. It raises ProviderUnavailable when the provider does not answer, or
    its answer is no listing.
    """

    async def check_key(
        session: aiohttp.ClientSession, base_url: str, key: SecretText | None
    ) -> KeyRefusal | None:
        fetched = await _ask(session, base_url, key, refusals, to_headers, {})
        if fetched.status in refusals:
            return KeyRefusal(fetched.status, refusals[fetched.status])
        read_listing(fetched.body, same_name)
        return None

    return check_key


def same_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a name as it is, which OpenRouter may use too."""
    return name, (name,)


def read_listing(body: bytes, read_name: ReadName) -> OfferedCatalogue:
    """Read the reply of `GET /models`. Raises ProviderUnavailable when it is no listing."""
    try:
        listed = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProviderUnavailable(f"GET {PATH} answered no list of models") from error
    if not isinstance(listed, list) or len(listed) > MAX_MODELS:
        raise ProviderUnavailable(f"GET {PATH} answered no list of models")
    found: dict[str, UnpricedModel] = {}
    withheld: dict[str, WithheldModel] = {}
    for place, entry in enumerate(listed):
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not _is_usable(name):
            named = f"entry {place}"
            withheld[named] = WithheldModel(named, "The entry has no id that can be used.")
            continue
        if entry.get("lifecycle") == "retired":
            # Anthropic lists models that no longer answer.
            continue
        upstream_name, catalogue_names = read_name(name)
        found[upstream_name] = UnpricedModel(
            upstream_name, _find_context_length(entry), None, catalogue_names
        )
    return OfferedCatalogue((), tuple(withheld.values()), tuple(found.values()))


async def _ask(
    session: aiohttp.ClientSession,
    base_url: str,
    key: SecretText | None,
    refusals: Mapping[int, str],
    to_headers: ToHeaders,
    query: Mapping[str, str],
) -> Fetched:
    understood = (200, 404, *refusals)
    fetched = await fetch(session, base_url, PATH, key, BOUNDS, understood, to_headers, **query)
    if fetched.status == 404:
        raise ProviderUnavailable(
            f"GET {PATH} answered 404: there is no such path below the base URL"
        )
    return fetched


def _is_usable(name: str) -> bool:
    return 1 <= len(name) <= MAX_NAME_CHARS and name.isprintable() and name == name.strip()


def _find_context_length(entry: dict[str, Any]) -> int | None:
    for member in _CONTEXT_MEMBERS:
        tokens = entry.get(member)
        if type(tokens) is int and tokens > 0:
            return min(tokens, MAX_TOKENS)
    return None
