"""Holds: the amount set aside for a request before it runs. Each ends exactly once."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from meter.pricing import Estimate


class HoldState(StrEnum):
    """`open` and `unknown` are live and set money aside; the other three are endings."""

    OPEN = "open"
    UNKNOWN = "unknown"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


LIVE_STATES: Final = frozenset({HoldState.OPEN, HoldState.UNKNOWN})


class HoldEnding(StrEnum):
    """Why a hold ended as it did."""

    SETTLED = "settled"
    PROVISIONAL = "provisional"
    NEVER_REACHED = "never_reached"
    REFUSED_UPSTREAM = "refused_upstream"
    TAKEN_BACK = "taken_back"
    UNDECIDED = "undecided"
    NOT_BILLED = "not_billed"


class Refusal(StrEnum):
    """Why no hold was placed."""

    CREDENTIAL_ENDED = "credential_ended"
    ACCOUNT_SUSPENDED = "account_suspended"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """What is asked of the store: set aside up to this estimate, for this request."""

    hold_id: UUID
    account_id: str
    credential_id: str
    model_id: str
    endpoint: str
    estimate: Estimate
    # Envoy's own id of the request: it tells which holds nothing will ever come of.
    request_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class HoldPlaced:
    """The hold is committed. `max_tokens` is how long one reply may be under it."""

    hold_id: UUID
    amount_picos: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class HoldRefused:
    """No hold; with the amounts in pico-dollars that the caller may be told."""

    reason: Refusal
    needed_picos: int
    available_picos: int


HoldAnswer = HoldPlaced | HoldRefused


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as the books have it, with the terms under which it will be settled.

    `max_tokens` is how long one reply may be under it.
    """

    id: UUID
    placed_at: datetime
    account_id: str
    credential_id: str
    model_id: str
    endpoint: str
    price_id: int
    markup_bps: int
    amount_picos: int
    flat_cost_picos: int
    max_tokens: int
    state: HoldState

    @property
    def is_live(self) -> bool:
        """Whether it still sets money aside."""
        return self.state in LIVE_STATES


def new_hold_id() -> UUID:
    """128 random bits: nobody can guess the id of somebody else's request."""
    return UUID(bytes=secrets.token_bytes(16))
