"""Faults on demand: the troubles of a payment provider and of the network to it."""

import random
from collections.abc import Callable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollkeeper.simulator.stripe.wire.problem import Problem

FAULTS_MAX = 100
#: A held delivery goes out after the next one, or after this time at the latest.
REORDER_SECONDS: Final = 1.0


class Trouble(StrEnum):
    """The kinds of faults: of requests first, of webhook deliveries after."""

    CONFLICT = "conflict"
    RATE_LIMIT = "rate_limit"
    ERROR = "error"
    ERROR_AFTER_COMMIT = "error_after_commit"
    CUT = "cut"
    CUT_AFTER_COMMIT = "cut_after_commit"
    LOSE = "lose"
    DUPLICATE = "duplicate"
    DELAY = "delay"
    REORDER = "reorder"


OF_WEBHOOKS: Final = {Trouble.LOSE, Trouble.DUPLICATE, Trouble.DELAY, Trouble.REORDER}


class Fault(BaseModel):
    """One fault, as the control API takes it.

    `match` is a pattern with `*`: of "METHOD /v1/path" for requests, of the event's type for
    webhooks. It strikes `percent` of what fits, `times` times (null: always).
    """

    model_config = ConfigDict(extra="forbid")

    trouble: Trouble
    match: str = Field(default="*", max_length=200)
    times: int | None = Field(default=1, ge=1)
    percent: int = Field(default=100, ge=1, le=100)
    delay_ms: int = Field(default=0, ge=0, le=86_400_000)

    @model_validator(mode="after")
    def has_delay(self) -> Self:
        if (self.trouble == Trouble.DELAY) != (self.delay_ms > 0):
            raise ValueError("delay_ms belongs to the trouble delay, and must be above 0")
        return self


class Faults:
    """The faults that are in force. `seed` makes what percent decides repeatable."""

    def __init__(self, seed: int = 0) -> None:
        self._faults: list[Fault] = []
        self._random = random.Random(seed)

    def add(self, fault: Fault) -> None:
        """Put a fault in force. Raises ValueError if FAULTS_MAX are."""
        if len(self._faults) >= FAULTS_MAX:
            raise ValueError(f"at most {FAULTS_MAX} faults are kept; DELETE /control/faults")
        self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def listed(self) -> list[dict[str, object]]:
        return [fault.model_dump(mode="json") for fault in self._faults]

    def of_request(self, what: str) -> Trouble | None:
        """Return the fault that strikes a request, "METHOD /v1/path"."""
        fault = self._struck(what, lambda one: one.trouble not in OF_WEBHOOKS)
        return fault.trouble if fault else None

    def of_delivery(self, event_type: str) -> Fault | None:
        """Return the fault that strikes the first delivery of an event."""
        return self._struck(event_type, lambda one: one.trouble in OF_WEBHOOKS)

    def _struck(self, what: str, may: Callable[[Fault], bool]) -> Fault | None:
        for fault in self._faults:
            fits = may(fault) and fnmatchcase(what, fault.match)
            if fits and self._random.randrange(100) < fault.percent:
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._faults.remove(fault)
                return fault
        return None


def problem_of(trouble: Trouble) -> Problem:
    """Return the error answer of a fault that has one."""
    if trouble == Trouble.CONFLICT:
        return Problem(
            409,
            "invalid_request_error",
            "This object cannot be accessed right now because another API request or Stripe "
            "process is currently accessing it.",
            code="lock_timeout",
            is_kept=False,
            headers={"Stripe-Should-Retry": "true"},
        )
    if trouble == Trouble.RATE_LIMIT:
        return Problem(
            429,
            "invalid_request_error",
            "Request rate limit exceeded.",
            code="rate_limit",
            is_kept=False,
            headers={"Stripe-Should-Retry": "false"},
        )
    # Stripe keeps a 500 under the idempotency key, so the same request again is of no use.
    return Problem(
        500,
        "api_error",
        "An unknown error occurred.",
        headers={"Stripe-Should-Retry": "false"},
    )
