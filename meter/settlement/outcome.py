"""Decides how an observed ending ends its hold: settled, released, or kept as unknown.

A strong verdict needs strong evidence (rule R4). A log settles a hold only by a usage object that
names a cost, in a reply that is no error; it releases a hold only where nothing can have been
generated. Everything else is unknown: the provider's own record decides, else a policy. The table
is in docs/operations.md, "How every hold ends".

Pure: the same observation and hold always give the same outcome, so a batch may be tried again.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from meter.errors import InvalidAmount
from meter.holds.hold import Hold, HoldEnding
from meter.money import MAX_PICOS, add_markup, picos_from_decimal
from meter.pricing.prices import Price, catalogue_cost
from meter.settlement.billing_terms import BillingTerms
from meter.usage.endpoints import WITHOUT_COMPLETION, WITHOUT_STREAM_COST
from meter.usage.response_flags import has_been_cut_upstream, has_never_reached
from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts

# Statuses by which something between us and the provider gives up waiting (408, 499, 504, and
# those that Cloudflare adds): the provider itself may have gone on, and billed.
GAVE_UP_WAITING: Final = frozenset({408, 499, 504, *range(520, 528)})
# The body of a completion, or of an embedding, is longer than this; `data: [DONE]` is shorter.
LEAST_REPLY_BYTES: Final = 16
# An error is shorter than this, the provider's own words in it included. After more bytes, text
# may have been generated before the error.
MOST_ERROR_BYTES: Final = 16_384
# A provider that closes an idle connection does so at once; after a longer time without a byte
# it may have read the request, and may have begun.
QUICK_CUT_MS: Final = 1_000


class PriceSource(StrEnum):
    """The origin of the cost in a usage record."""

    PROVIDER = "provider"
    CATALOGUE = "catalogue"
    ESTIMATE = "estimate"


class UnknownReason(StrEnum):
    """The reason for which a finished request cannot be settled yet."""

    NO_USAGE = "no_usage"
    ZERO_COST = "zero_cost"
    NO_COST = "no_cost"
    COST_IN_RECORD = "cost_in_record"
    CONTRADICTION = "contradiction"
    FAILED = "failed"
    NO_ENTRY = "no_entry"


@dataclass(frozen=True, slots=True)
class Settled:
    """The tokens, cost and charge of a request; amounts are pico-dollars.

    The cost is the provider's, whoever pays it: the account itself where it used its own key.
    """

    tokens: TokenCounts
    cost_picos: int
    charge_picos: int
    price_source: PriceSource


@dataclass(frozen=True, slots=True)
class Released:
    """The hold ends without a charge, because nothing was billed."""

    ending: HoldEnding


@dataclass(frozen=True, slots=True)
class Unknown:
    """The hold stays until the provider's own record, or a policy, gives the usage."""

    reason: UnknownReason


Outcome = Settled | Released | Unknown

_OPENROUTER: Final = BillingTerms()
_LOGS: Final = frozenset({Source.STREAM, Source.FILE})


def decide_outcome(
    seen: Observation, hold: Hold, price: Price, terms: BillingTerms = _OPENROUTER
) -> Outcome:
    """Decide how a request that was observed to have ended ends its hold.

    Raises InvalidAmount when the provider's own record has an amount that fits no ledger. When a
    log has such an amount, the outcome is Unknown, so that the provider's record is looked up.
    """
    usage = seen.usage
    if usage is not None and seen.source is Source.LOOKUP:
        # No better source exists.
        return _settle(usage, hold, price)
    if usage is not None and not _says_nothing(usage):
        return _judge_usage(seen, usage, hold, price, terms)
    if _never_reached(seen):
        return Released(HoldEnding.NEVER_REACHED)
    # With a generation id, the provider had begun, and may have billed in spite of the error.
    if terms.refusals_are_free and _is_only_refusal(seen) and seen.generation_id is None:
        return Released(HoldEnding.REFUSED_UPSTREAM)
    return Unknown(UnknownReason.FAILED if has_failed(seen) else UnknownReason.NO_USAGE)


def ordinary_cost(seen: Observation) -> int | None:
    """Return the cost in pico-dollars of an ending that any hold decides alike; None for others.

    `decide_outcome` settles such an ending with this cost, whatever its hold and price: a log names
    a cost above 0, and nothing contradicts it. Only the markup and the amount of the hold remain.
    Where the log names a provider, its terms and its price decide.
    """
    usage = seen.usage
    if usage is None or usage.cost_usd is None or seen.source not in _LOGS:
        return None
    if seen.provider is not None:
        return None
    if is_contradicted(seen):
        return None
    try:
        cost_picos = _named_cost(usage, usage.cost_usd)
    except InvalidAmount:
        return None
    return cost_picos if 0 < cost_picos <= MAX_PICOS else None


def has_failed(seen: Observation) -> bool:
    """Return whether a request ended in an error that is seldom billed, though it may be.

    The provider is asked about such a request for a short time. Without a record of it, the
    policy then ends its hold without a charge.
    """
    if _is_only_refusal(seen):
        return True
    status = seen.provider_status
    if status is not None:
        return status >= 500 and status not in GAVE_UP_WAITING
    # The connection was closed as the request arrived: nobody answered a byte.
    is_quick = seen.upstream_ms is not None and seen.upstream_ms <= QUICK_CUT_MS
    is_unanswered = seen.time_to_first_byte_ms is None and seen.generation_id is None
    return is_quick and is_unanswered and has_been_cut_upstream(seen.response_flags)


def is_contradicted(seen: Observation) -> bool:
    """Return whether a log names usage of a request that failed or never ran."""
    status = seen.provider_status
    has_error_status = status is not None and not 200 <= status < 300
    is_unsent = not seen.reached_provider or has_never_reached(seen.response_flags)
    return has_error_status or seen.has_error or is_unsent


def _never_reached(seen: Observation) -> bool:
    """Return whether no provider saw the request, and no sign of a reply says otherwise."""
    is_unanswered = (
        seen.provider_status is None
        and seen.time_to_first_byte_ms is None
        and seen.generation_id is None
    )
    is_unsent = not seen.reached_provider or has_never_reached(seen.response_flags)
    return is_unsent and is_unanswered and seen.usage is None


def _is_only_refusal(seen: Observation) -> bool:
    """Return whether the provider answered nothing but a refusal, an error, or nothing at all."""
    status = seen.provider_status
    # The provider's status is not known where the client left, or the connection broke, in the
    # middle of a reply: its head had been passed on. Replies of Envoy's own are errors too.
    has_begun = seen.time_to_first_byte_ms is not None
    begun_status = seen.status_code if status is None and has_begun else status
    if seen.has_error and begun_status is not None and 200 <= begun_status < 300:
        return seen.response_bytes <= MOST_ERROR_BYTES
    if status is None or status in GAVE_UP_WAITING:
        return False
    if status < 300:
        is_whole = not seen.response_flags
        return is_whole and seen.response_bytes < LEAST_REPLY_BYTES
    return status < 500


def _says_nothing(usage: ReportedUsage) -> bool:
    """Return whether a usage object is a placeholder: every request has a prompt."""
    return not (
        usage.tokens.prompt
        or usage.tokens.completion
        or usage.cost_usd
        or usage.upstream_cost_usd
        or usage.is_byok
    )


def _judge_usage(
    seen: Observation, usage: ReportedUsage, hold: Hold, price: Price, terms: BillingTerms
) -> Outcome:
    """Decide by the usage object that a log has."""
    if is_contradicted(seen):
        return Unknown(UnknownReason.CONTRADICTION)
    if not terms.names_costs:
        # Our price of this provider decides, whatever a server writes into its usage.
        usage = replace(usage, cost_usd=None, upstream_cost_usd=None, is_byok=False)
    if usage.cost_usd is None:
        has_completion = hold.endpoint not in WITHOUT_COMPLETION
        is_complete = usage.tokens.completion > 0 or not has_completion
        if terms.names_costs or not is_complete:
            is_expected = seen.is_streaming and hold.endpoint in WITHOUT_STREAM_COST
            is_apart = is_complete and is_expected
            return Unknown(UnknownReason.COST_IN_RECORD if is_apart else UnknownReason.NO_COST)
    try:
        settled = _settle(usage, hold, price)
    except InvalidAmount:
        return Unknown(UnknownReason.NO_USAGE)
    # Rule R8: only the price or an own key explains a cost of 0. That the reply was empty, or came
    # from a cache, is for the provider's record to say.
    is_free = (price.is_free and not hold.flat_cost_picos) or usage.is_byok
    if settled.cost_picos == 0 and not is_free:
        return Unknown(UnknownReason.ZERO_COST)
    return settled


def _settle(usage: ReportedUsage, hold: Hold, price: Price) -> Settled:
    """Return the charge for usage. Raises InvalidAmount when an amount fits no ledger."""
    if usage.cost_usd is None:
        cost_picos = catalogue_cost(usage.tokens, price, hold.flat_cost_picos)
        price_source = PriceSource.CATALOGUE
    else:
        cost_picos = _named_cost(usage, usage.cost_usd)
        price_source = PriceSource.PROVIDER
    charge_picos = add_markup(cost_picos, hold.markup_bps)
    if charge_picos > MAX_PICOS:
        raise InvalidAmount("the charge does not fit a ledger entry")
    return Settled(usage.tokens, cost_picos, charge_picos, price_source)


def _named_cost(usage: ReportedUsage, cost_usd: Decimal) -> int:
    """Return the cost that usage names. Raises InvalidAmount when it fits no ledger."""
    cost_picos = picos_from_decimal(cost_usd)
    if usage.is_byok and usage.upstream_cost_usd is not None:
        # With an own key the amounts are apart: the fee is in `cost`, the spend is upstream.
        cost_picos += picos_from_decimal(usage.upstream_cost_usd)
    return cost_picos
