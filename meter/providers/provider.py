"""The values that describe a provider and its dialect, and the results of a dialect's functions."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import aiohttp

from meter.pricing.prices import OfferedModel, WithheldModel
from meter.providers.key_refusal import KeyRefusal
from meter.sealing import SecretText
from meter.settlement.billing_terms import BillingTerms
from meter.usage.usage import ReportedUsage


class DialectName(StrEnum):
    """The names of the dialects that Tollkeeper knows."""

    OPENROUTER = "openrouter"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    OPENAI_COMPATIBLE = "openai_compatible"


class ProviderState(StrEnum):
    """The states of a provider: no request goes to a disabled one."""

    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class UnpricedModel:
    """A model that a provider lists under its own name, without prices.

    The limits are tokens; None where the listing does not say. `catalogue_names` are the names,
    without a prefix, under which OpenRouter may list the same model, the likeliest first.
    """

    upstream_name: str
    context_length: int | None = None
    max_completion_tokens: int | None = None
    catalogue_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OfferedCatalogue:
    """The models that a provider lists now.

    `models` have prices, `withheld` ones cannot be priced, and `unpriced` ones have no price in
    the listing, so that it comes from elsewhere.
    """

    models: tuple[OfferedModel, ...] = ()
    withheld: tuple[WithheldModel, ...] = ()
    unpriced: tuple[UnpricedModel, ...] = ()


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
class Dialect:
    """The peculiarities of the providers of one kind.

    - `billing` has the terms that the documentation states.
    - `base_url` is the public address of the provider; None where each server has its own.
    - `model_prefix` is put before the provider's names of models, so that they are those that
      OpenRouter has for the same models; empty where that is for an administrator to choose.
    - `needs_key` says that no request is answered without a key.
    - `asks_for_usage` says that streams carry usage only with `stream_options.include_usage`.
    - `takes_openrouter_members` says that members of a request that only OpenRouter defines, such
      as `models`, `plugins` and `provider`, are understood.
    - `unbilled_statuses` are the answers that prove that nothing was generated or billed, so that
      another provider may be asked.

    The functions that ask take a session, the base URL and the key. They raise
    ProviderUnavailable when the provider does not answer, or answers something else than asked.

    - `fetch_catalogue` returns the models that the provider lists.
    - `check_key` returns why the key does not work, None when it does; it is a free call.
    - `fetch_generation` takes the id of a generation as well, and returns None for an id that the
      provider does not know, or does not know yet. None where nobody can be asked.
    - `fetch_total_usd` returns US dollars billed to the key since it was made. None where nobody
      can be asked.
    - `read_reports` reads the body of a message that reports generations; raises InvalidRequest.
      None where the provider sends no reports.
    """

    name: DialectName
    billing: BillingTerms
    base_url: str | None
    model_prefix: str
    needs_key: bool
    asks_for_usage: bool
    takes_openrouter_members: bool
    unbilled_statuses: frozenset[int]
    fetch_catalogue: Callable[
        [aiohttp.ClientSession, str, SecretText | None], Awaitable[OfferedCatalogue]
    ]
    check_key: Callable[
        [aiohttp.ClientSession, str, SecretText | None], Awaitable[KeyRefusal | None]
    ]
    fetch_generation: (
        Callable[[aiohttp.ClientSession, str, SecretText, str], Awaitable[GenerationRecord | None]]
        | None
    ) = None
    fetch_total_usd: (
        Callable[[aiohttp.ClientSession, str, SecretText], Awaitable[Decimal]] | None
    ) = None
    read_reports: Callable[[bytes], tuple[Report, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider: its id in our books, its dialect, and its base URL without a slash at the end.

    `model_prefix` is put before its own names of models. The models of a free provider cost
    nothing unless an administrator's price list says otherwise.
    """

    id: str
    dialect: Dialect
    base_url: str
    state: ProviderState = ProviderState.ENABLED
    model_prefix: str = ""
    is_free: bool = False

    @property
    def is_enabled(self) -> bool:
        """Return whether requests may go to this provider."""
        return self.state is ProviderState.ENABLED

    def at(self, base_url: str) -> "Provider":
        """Return the same provider at another base URL."""
        return replace(self, base_url=base_url.rstrip("/"))
