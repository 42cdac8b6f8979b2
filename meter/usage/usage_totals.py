"""Usage, added up."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Grouping(StrEnum):
    """By what usage is added up."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """The usage records of one group, added up; `group` is a date, a model or a credential id.

    `own_key_cost_picos` is what the account paid providers with keys of its own.
    """

    group: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    provider_cost_picos: int
    charge_picos: int
    own_key_cost_picos: int


@dataclass(frozen=True, slots=True)
class PeriodSums:
    """An amount in all, and in the present day, week (from Monday) and month of UTC."""

    total_picos: int
    day_picos: int
    week_picos: int
    month_picos: int


NO_SPENDING: Final = PeriodSums(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class CredentialSpending:
    """The charges of a credential, and what its requests cost under own keys of the account."""

    charged: PeriodSums
    own_keys: PeriodSums
