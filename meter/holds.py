"""Holds: the amount set aside for a request before it runs. Each ends exactly once."""

import secrets
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from meter.pricing import Estimate


class HoldState(StrEnum):
    """`open` and `unknown` still set money aside; the other three are endings."""

    OPEN = "open"
    UNKNOWN = "unknown"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


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
    """A hold as the books have it, with the terms under which it will be settled."""

    id: UUID
    account_id: str
    credential_id: str
    model_id: str
    endpoint: str
    price_id: int
    markup_bps: int
    amount_picos: int
    flat_cost_picos: int
    state: HoldState


def new_hold_id() -> UUID:
    """128 random bits: nobody can guess the id of somebody else's request."""
    return UUID(bytes=secrets.token_bytes(16))
