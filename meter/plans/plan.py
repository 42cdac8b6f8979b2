"""Plans: terms that many accounts share, with a history. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from meter.errors import InvalidRequest
from meter.limits.limits import NO_RATES, Rates, rates_to_json
from meter.money import PICOS_PER_CENT, PICOS_PER_USD, format_usd
from meter.scopes import DEFAULT_SCOPES, Scope

DEFAULT_MAX_KEYS: Final = 100
DEFAULT_SELF_SERVICE: Final = DEFAULT_SCOPES | {Scope.KEYS_WRITE}
MOST_TRIAL_DAYS: Final = 730
# What Stripe itself can charge in US dollars.
LEAST_PRICE_PICOS: Final = PICOS_PER_USD // 2


class BillingPeriod(StrEnum):
    """The length of a period of a subscription, in the words of Stripe."""

    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class PlanPrice:
    """The price of a period, and the credit that it includes.

    The first `trial_days` of an account's first subscription cost nothing, and give `trial_picos`.
    """

    amount_picos: int
    period: BillingPeriod
    included_picos: int = 0
    trial_days: int = 0
    trial_picos: int = 0

    def __post_init__(self) -> None:
        """Refuse what Stripe cannot charge. Raises InvalidRequest."""
        if self.amount_picos < LEAST_PRICE_PICOS or self.amount_picos % PICOS_PER_CENT:
            raise InvalidRequest("a price is 0.50 USD or more, in whole cents")
        if self.trial_picos and not self.trial_days:
            raise InvalidRequest("credit for a trial needs the days of the trial")


def price_key(plan_id: str, price: PlanPrice) -> str:
    """Return the key by which a price is found at Stripe.

    Versions of a plan with the same price share it, so that only a new price makes one there.
    """
    return f"tollkeeper:{plan_id}:{price.amount_picos // PICOS_PER_CENT}:{price.period.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Terms that many accounts share. `rates` limit each account, `key_rates` each of its keys.

    A plan with a price is sold. Plans are shown in the order of `position`.
    `own_key_fee_bps` is the part of the cost that requests with own provider keys are charged.
    """

    id: str
    name: str
    markup_bps: int
    rates: Rates = NO_RATES
    key_rates: Rates = NO_RATES
    max_keys: int = DEFAULT_MAX_KEYS
    self_service_scopes: frozenset[Scope] = DEFAULT_SELF_SERVICE
    price: PlanPrice | None = None
    position: int = 0
    is_most_popular: bool = False
    own_key_fee_bps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanVersion(Plan):
    """The terms of a plan as one change left them; versions count from 1, and never change.

    New periods get `current_version`; running ones get `least_version` or a later one. A retired
    plan is not sold any more; accounts keep it.
    """

    version: int
    created_at: datetime
    created_by: str
    current_version: int
    least_version: int
    retired_at: datetime | None

    @property
    def is_sold(self) -> bool:
        """Return whether users may subscribe to it."""
        return self.price is not None and self.retired_at is None


def terms_of(plan: Plan) -> dict[str, Any]:
    """Return the terms as the audit log writes them; plans with equal terms are the same."""
    price = plan.price
    return {
        "name": plan.name,
        "markup_bps": plan.markup_bps,
        "own_key_fee_bps": plan.own_key_fee_bps,
        "price": None if price is None else format_usd(price.amount_picos),
        "period": None if price is None else price.period.value,
        "included_credit": None if price is None else format_usd(price.included_picos),
        "trial_days": None if price is None else price.trial_days,
        "trial_credit": None if price is None else format_usd(price.trial_picos),
        "position": plan.position,
        "is_most_popular": plan.is_most_popular,
        **rates_to_json(plan.rates),
        **{f"key_{name}": value for name, value in rates_to_json(plan.key_rates).items()},
        "max_keys": plan.max_keys,
        "self_service_scopes": sorted(plan.self_service_scopes),
    }
