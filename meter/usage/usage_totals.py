"""Usage, added up."""

from dataclasses import dataclass
from enum import StrEnum


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
