"""What an observed ending means for a hold: settle it, release it, or keep it as unknown.

Pure: the same observation and hold always give the same outcome, so a batch may be tried again.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meter.errors import InvalidAmount
from meter.holds.hold import Hold, HoldEnding
from meter.money import MAX_PICOS, add_markup, picos_from_decimal
from meter.pricing.prices import Price, catalogue_cost
from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts

# Envoy's response flags that mean that no provider saw the request (docs: Envoy access logging,
# %RESPONSE_FLAGS%): no healthy host, connection failure, overflow, no route, no cluster, limited.
NEVER_REACHED_FLAGS: Final = frozenset({"UH", "UF", "UO", "NR", "NC", "RL", "UAEX"})
FIRST_ERROR_STATUS: Final = 400
# Statuses by which something between us and the provider gives up waiting (408, 504, and those
# that Cloudflare adds): the provider itself may have gone on, and billed.
GAVE_UP_WAITING: Final = frozenset({408, 504, *range(520, 528)})


class PriceSource(StrEnum):
    """Where the cost of a usage record comes from."""

    PROVIDER = "provider"
    CATALOGUE = "catalogue"
    ESTIMATE = "estimate"


class UnknownReason(StrEnum):
    """Why a finished request could not be settled yet."""

    NO_USAGE = "no_usage"
    ZERO_COST = "zero_cost"
    NO_ENTRY = "no_entry"


@dataclass(frozen=True, slots=True)
class Settled:
    """What the request used, cost and owes, in pico-dollars."""

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
    """The hold stays until the provider's own record, or a policy, says what was used."""

    reason: UnknownReason


Outcome = Settled | Released | Unknown


def settle(observation: Observation, hold: Hold, price: Price) -> Outcome:
    """Decide how a request that was observed to have ended ends its hold.

    Raises InvalidAmount when the provider's own record names what fits no ledger; of a log's word
    the record is asked for instead.
    """
    if observation.usage is not None:
        try:
            return _settle_usage(observation, observation.usage, hold, price)
        except InvalidAmount:
            if observation.source is Source.LOOKUP:
                raise
            return Unknown(UnknownReason.NO_USAGE)
    if not observation.reached_provider or _has_never_reached_flag(observation):
        return Released(HoldEnding.NEVER_REACHED)
    if _was_refused_upstream(observation):
        return Released(HoldEnding.REFUSED_UPSTREAM)
    return Unknown(UnknownReason.NO_USAGE)


def _has_never_reached_flag(observation: Observation) -> bool:
    return bool(NEVER_REACHED_FLAGS.intersection(observation.response_flags.split(",")))


def _was_refused_upstream(observation: Observation) -> bool:
    """The provider refused before any generation began."""
    status = observation.provider_status
    if status is None or status in GAVE_UP_WAITING:
        return False
    return status >= FIRST_ERROR_STATUS and not observation.generation_id


def _settle_usage(
    observation: Observation, usage: ReportedUsage, hold: Hold, price: Price
) -> Outcome:
    if usage.cost_usd is None:
        cost_picos = catalogue_cost(usage.tokens, price, hold.flat_cost_picos)
        return _settled(usage.tokens, cost_picos, PriceSource.CATALOGUE, hold)
    cost_picos = picos_from_decimal(usage.cost_usd)
    if usage.is_byok and usage.upstream_cost_usd is not None:
        # Only here are the two apart: the fee is in `cost`, the spend is upstream.
        cost_picos += picos_from_decimal(usage.upstream_cost_usd)
    # What the provider's own record says is believed as it is: nobody knows better.
    is_doubtful = cost_picos == 0 and observation.source is not Source.LOOKUP
    if is_doubtful and not _may_cost_nothing(usage, hold, price):
        return Unknown(UnknownReason.ZERO_COST)
    return _settled(usage.tokens, cost_picos, PriceSource.PROVIDER, hold)


def _may_cost_nothing(usage: ReportedUsage, hold: Hold, price: Price) -> bool:
    """Rule R8: a cost of zero is believed only with a reason."""
    if price.is_free or usage.is_byok:
        return True
    # Providers bill no prompt whose reply came out empty; an embedding has no reply to be empty.
    is_embedding = hold.endpoint == "embeddings"
    return (usage.tokens.prompt if is_embedding else usage.tokens.completion) == 0


def _settled(tokens: TokenCounts, cost_picos: int, source: PriceSource, hold: Hold) -> Settled:
    charge_picos = add_markup(cost_picos, hold.markup_bps)
    if charge_picos > MAX_PICOS:
        raise InvalidAmount("the charge does not fit a ledger entry")
    return Settled(tokens, cost_picos, charge_picos, source)
