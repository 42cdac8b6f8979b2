"""Holds: the amount set aside for a request before it runs. Each ends exactly once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

from meter.money import own_key_fee
from meter.postgres.fast_uuid import FastUUID
from meter.pricing.prices import Estimate
from meter.values import light_value


class HoldState(StrEnum):
    """`open` and `unknown` are live and set money aside; the other three are endings."""

    OPEN = "open"
    UNKNOWN = "unknown"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


_RANDOM_BYTES: Final = 10
# 12 and 62 bits around those that say version 7 and variant 10 (RFC 9562).
_RANDOM_BITS: Final = 0xFFF << 64 | (1 << 62) - 1
_VERSION_AND_VARIANT: Final = 0x7 << 76 | 0b10 << 62
LIVE_STATES: Final = frozenset({HoldState.OPEN, HoldState.UNKNOWN})


class HoldEnding(StrEnum):
    """The reasons for which a hold ends."""

    SETTLED = "settled"
    PROVISIONAL = "provisional"
    NEVER_REACHED = "never_reached"
    REFUSED_UPSTREAM = "refused_upstream"
    TAKEN_BACK = "taken_back"
    UNDECIDED = "undecided"
    NOT_BILLED = "not_billed"
    FAILED = "failed"


class Refusal(StrEnum):
    """The reasons for placing no hold."""

    CREDENTIAL_ENDED = "credential_ended"
    ACCOUNT_SUSPENDED = "account_suspended"
    INSUFFICIENT = "insufficient"
    BUDGET_EXCEEDED = "budget_exceeded"
    TOO_MANY_CONCURRENT = "too_many_concurrent"


@light_value
class CountedTokens:
    """The tokens of a request that limits have counted, and their buckets."""

    buckets: tuple[str, ...] = ()
    tokens: int = 0


NO_TOKENS: Final = CountedTokens()


@light_value
class HoldRequest:
    """A request to set aside money, up to an estimate.

    `account_concurrent` and `key_concurrent` are how many requests may run at once; None is no
    limit. The store knows the budgets of the credential and the pass. `has_budget` is a hint of a
    cache, which spares the store an attempt: it decides nothing.
    """

    hold_id: UUID
    account_id: str
    credential_id: str
    model_id: str
    endpoint: str
    estimate: Estimate
    # Envoy's id of the request. The sweep uses it to find holds whose request was never decided.
    request_id: UUID | None = None
    pass_id: str | None = None
    account_concurrent: int | None = None
    key_concurrent: int | None = None
    counted: CountedTokens = NO_TOKENS
    has_budget: bool = False


@light_value
class HoldPlaced:
    """The hold is committed. `max_tokens` bounds one reply under it."""

    hold_id: UUID
    amount_picos: int
    max_tokens: int


@light_value
class HoldRefused:
    """No hold; with the amounts in pico-dollars that the caller may be told."""

    reason: Refusal
    needed_picos: int
    available_picos: int


HoldAnswer = HoldPlaced | HoldRefused


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as it is stored, with the terms of its settlement.

    `max_tokens` bounds one reply under it.
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
    pass_id: str | None = None
    counted: CountedTokens = NO_TOKENS

    @property
    def spenders(self) -> tuple[str, ...]:
        """Return the ids whose budgets the hold counts in: of its credential and its pass."""
        return (self.credential_id,) if self.pass_id is None else (self.credential_id, self.pass_id)

    @property
    def own_key_fee_bps(self) -> int | None:
        """Return the part of the cost that is charged for the use of the account's own key.

        None for a request with a key of ours. With an own key the account pays the provider itself.
        """
        return own_key_fee(self.markup_bps)

    @property
    def is_own_key(self) -> bool:
        """Return whether the request goes out with the account's own key of the provider."""
        return self.markup_bps < 0

    def owed_picos(self, cost_picos: int) -> int:
        """Return what the house owes the provider for a cost: nothing under an own key."""
        return 0 if self.is_own_key else cost_picos

    @property
    def is_live(self) -> bool:
        """Return whether it still sets money aside."""
        return self.state in LIVE_STATES


def new_hold_id(placed_at: datetime) -> UUID:
    """Return a UUID of version 7: milliseconds since 1970, then 74 random bits.

    Nobody can guess the id of another request. Ids of one moment stand side by side in indexes,
    so that placing and ending holds touches few pages.
    """
    milliseconds = int(placed_at.timestamp() * 1_000)
    random = int.from_bytes(os.urandom(_RANDOM_BYTES))
    number = milliseconds << 80 | random & _RANDOM_BITS | _VERSION_AND_VARIANT
    return FastUUID(number.to_bytes(16))


class Holds(Protocol):
    """Places holds before requests run."""

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """Set the estimate aside in a commit, or return the refusal.

        The credential is judged together with the money, so a revoked key gets no hold, even
        where a cache still has its principal. Cancelling the call never leaves an open hold.
        """
        ...

    async def find_available(self, account_id: str) -> int:
        """Return what new holds of the account may use, in pico-dollars; 0 for an unknown one."""
        ...

    def expected_wait_s(self, account_id: str) -> float:
        """Return how long the next request of an account will wait for its hold, in seconds."""
        ...

    async def release(self, hold_ids: Sequence[UUID]) -> int:
        """End holds without a charge; returns how many were still open. Idempotent.

        Raises StoreUnavailable when some of them may be left; a retry is right.
        """
        ...

    def release_later(self, hold_ids: Sequence[UUID]) -> None:
        """End holds without a charge in the background; retry through an outage. Never raises."""
        ...
