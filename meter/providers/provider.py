"""The value that describes a provider to the rest of the meter, and what its functions return."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

import aiohttp

from meter.pricing.prices import OfferedModel, WithheldModel
from meter.providers.key_refusal import KeyRefusal
from meter.sealing import SecretText
from meter.settlement.billing_terms import BillingTerms
from meter.usage.usage import ReportedUsage


@dataclass(frozen=True, slots=True)
class OfferedCatalogue:
    """The models that a provider offers now, and those that it lists but cannot be priced."""

    models: tuple[OfferedModel, ...]
    withheld: tuple[WithheldModel, ...]


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """One generation in the books of the provider, with tokens of the model's own tokenizer.

    `model` and `created_at` are None where the record does not say them readably.
    """

    generation_id: str
    usage: ReportedUsage
    is_cancelled: bool
    is_streamed: bool
    created_at: datetime | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """A provider's report that a generation ended.

    `tag` is the tag that the request carried, or another trace id where it carried none of ours.
    `cost_usd` is None where the report has no cost; a cost is only compared, never charged.
    """

    tag: str
    generation_id: str
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider: its id in our books, its base URL without a slash at the end, and its dialect.

    `billing` has the terms that its documentation states.

    The functions that ask take a session, the base URL and the key. They raise
    ProviderUnavailable when the provider does not answer, or answers something else than asked.

    - `fetch_catalogue` returns the models on offer; it needs no key.
    - `fetch_generation` takes the id of a generation as well, and returns None for an id that the
      provider does not know, or does not know yet.
    - `fetch_total_usd` returns US dollars billed to the key since it was made.
    - `check_key` returns why the key does not work, None when it does; it is a free call.
    - `read_reports` reads the body of a message that reports generations; raises InvalidRequest.
    """

    id: str
    base_url: str
    billing: BillingTerms
    fetch_catalogue: Callable[
        [aiohttp.ClientSession, str, SecretText | None], Awaitable[OfferedCatalogue]
    ]
    fetch_generation: Callable[
        [aiohttp.ClientSession, str, SecretText, str], Awaitable[GenerationRecord | None]
    ]
    fetch_total_usd: Callable[[aiohttp.ClientSession, str, SecretText], Awaitable[Decimal]]
    check_key: Callable[[aiohttp.ClientSession, str, SecretText], Awaitable[KeyRefusal | None]]
    read_reports: Callable[[bytes], tuple[Report, ...]]

    def at(self, base_url: str) -> "Provider":
        """Return the same provider at another base URL."""
        return replace(self, base_url=base_url.rstrip("/"))
