"""Decides how an observed ending ends its hold: settled, released, or kept as unknown.

Pure: the same observation and hold always give the same outcome, so a batch may be tried again.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meter.errors import InvalidAmount
from meter.holds.hold import Hold, HoldEnding
from meter.money import MAX_PICOS, add_markup, picos_from_decimal
from meter.pricing.prices import Price, catalogue_cost
from meter.usage.endpoints import WITHOUT_COMPLETION
from meter.usage.response_flags import has_never_reached
from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts

FIRST_ERROR_STATUS: Final = 400
# Statuses by which something between us and the provider gives up waiting (408, 504, and those
# that Cloudflare adds): the provider itself may have gone on, and billed.
GAVE_UP_WAITING: Final = frozenset({408, 504, *range(520, 528)})


class PriceSource(StrEnum):
    """The origin of the cost in a usage record."""

    PROVIDER = "provider"
    CATALOGUE = "catalogue"
    ESTIMATE = "estimate"


class UnknownReason(StrEnum):
    """The reason for which a finished request cannot be settled yet."""

    NO_USAGE = "no_usage"
    ZERO_COST = "zero_cost"
    NO_ENTRY = "no_entry"


@dataclass(frozen=True, slots=True)
class Settled:
    """The tokens, cost and charge of a request; amounts are pico-dollars."""

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


def decide_outcome(observation: Observation, hold: Hold, price: Price) -> Outcome:
    """Decide how a request that was observed to have ended ends its hold.

    Raises InvalidAmount when the provider's own record has an amount that fits no ledger. When a
    log has such an amount, the outcome is Unknown, so that the provider's record is looked up.
    """
    if observation.usage is not None:
        try:
            return _outcome_of_usage(observation, observation.usage, hold, price)
        except InvalidAmount:
            if observation.source is Source.LOOKUP:
                raise
            return Unknown(UnknownReason.NO_USAGE)
    if not observation.reached_provider or has_never_reached(observation.response_flags):
        return Released(HoldEnding.NEVER_REACHED)
    status = observation.provider_status
    has_refused = (
        status is not None and status >= FIRST_ERROR_STATUS and status not in GAVE_UP_WAITING
    )
    # With a generation id, the provider had begun, and may have billed in spite of the error.
    if has_refused and not observation.generation_id:
        return Released(HoldEnding.REFUSED_UPSTREAM)
    return Unknown(UnknownReason.NO_USAGE)


def _outcome_of_usage(
    observation: Observation, usage: ReportedUsage, hold: Hold, price: Price
) -> Outcome:
    if usage.cost_usd is None:
        cost_picos = catalogue_cost(usage.tokens, price, hold.flat_cost_picos)
        price_source = PriceSource.CATALOGUE
    else:
        cost_picos = picos_from_decimal(usage.cost_usd)
        if usage.is_byok and usage.upstream_cost_usd is not None:
            # With an own key the amounts are apart: the fee is in `cost`, the spend is upstream.
            cost_picos += picos_from_decimal(usage.upstream_cost_usd)
        price_source = PriceSource.PROVIDER
        # The provider's own record is final: no better source exists.
        is_doubtful = cost_picos == 0 and observation.source is not Source.LOOKUP
        if is_doubtful and not _may_cost_nothing(usage, hold, price):
            return Unknown(UnknownReason.ZERO_COST)
    charge_picos = add_markup(cost_picos, hold.markup_bps)
    if charge_picos > MAX_PICOS:
        raise InvalidAmount("the charge does not fit a ledger entry")
    return Settled(usage.tokens, cost_picos, charge_picos, price_source)


def _may_cost_nothing(usage: ReportedUsage, hold: Hold, price: Price) -> bool:
    """Return True when a cost of zero has a reason (rule R8); it is looked up otherwise."""
    if price.is_free or usage.is_byok:
        return True
    # Providers bill no prompt whose reply came out empty; an embedding has no reply to be empty.
    has_completion = hold.endpoint not in WITHOUT_COMPLETION
    return (usage.tokens.completion if has_completion else usage.tokens.prompt) == 0
