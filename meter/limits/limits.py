"""Limits on requests and tokens, and the buckets that they are counted in. Pure.

All requests that count in one bucket share its limit. A bucket is `key:<id>`, `account:<id>`, or
`rule:<id>`, which may be followed by `:account:<id>` or `:key:<id>`.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from fnmatch import fnmatchcase
from typing import Final

WINDOW_S: Final = 60


class LimitKind(StrEnum):
    """The unit that a limit counts: requests, or model tokens."""

    REQUESTS = "requests"
    TOKENS = "tokens"


class LimitWindow(IntEnum):
    """The time over which a limit counts. The scripts in `scripts/` know the same numbers.

    `MINUTE`: any 60 seconds. `DAY` and `MONTH`: those of the calendar in UTC, as for budgets.
    """

    MINUTE = 0
    DAY = 1
    MONTH = 2

    @property
    def words(self) -> str:
        """Return the words that follow a number of requests or tokens."""
        return ("a minute", "a day (UTC)", "a month (UTC)")[self]


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of one key or account; None means no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    requests_per_day: int | None = None
    requests_per_month: int | None = None


NO_RATES: Final = Rates()


def end_of_window(window: LimitWindow, now: datetime) -> datetime:
    """Return when the day or month (UTC) of an instant ends."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if window is LimitWindow.DAY:
        return midnight + timedelta(days=1)
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


def key_of(kind: LimitKind, bucket: str, window: LimitWindow = LimitWindow.MINUTE) -> str:
    """Return the name of a window: each bucket has one for each kind and time."""
    if window is LimitWindow.MINUTE:
        return f"{kind.value}:{bucket}"
    return f"{kind.value}-{window.name.lower()}:{bucket}"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` of a kind in the window, for all requests that share the bucket.

    A limit in shadow mode is counted and reported, but never refuses a request. The name of a
    bucket has no spaces. `key` names kind and bucket together; it is computed once, because each
    check uses it several times.
    """

    bucket: str
    kind: LimitKind
    most: int
    is_shadow: bool = False
    window: LimitWindow = LimitWindow.MINUTE
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Compute the key."""
        object.__setattr__(self, "key", key_of(self.kind, self.bucket, self.window))


@dataclass(frozen=True, slots=True)
class TokenUse:
    """A correction of the tokens that were counted when a request was admitted.

    `tokens` is added to the buckets. A negative number gives tokens back, out of those counted at
    `counted_at` or before; None means now.
    """

    buckets: tuple[str, ...]
    tokens: int
    counted_at: datetime | None = None


class AppliesTo(StrEnum):
    """The requests that a rule applies to."""

    EVERYONE = "everyone"
    PLAN = "plan"
    ACCOUNT = "account"
    KEY = "key"


class CountedPer(StrEnum):
    """The division of a rule into buckets: one for all requests, or one per account or key."""

    RULE = "rule"
    ACCOUNT = "account"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A limit in addition to those of keys, accounts and plans.

    `model_pattern` is the id of a model or a glob; None means every model.
    """

    id: str
    applies_to: AppliesTo
    applies_id: str | None
    counted_per: CountedPer
    model_pattern: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    is_shadow: bool
    requests_per_day: int | None = None
    requests_per_month: int | None = None

    @property
    def rates(self) -> Rates:
        """Return the limits of the rule."""
        return Rates(
            self.requests_per_minute,
            self.tokens_per_minute,
            requests_per_day=self.requests_per_day,
            requests_per_month=self.requests_per_month,
        )

    def covers(self, plan_id: str, account_id: str, credential_id: str, model_id: str) -> bool:
        """Return whether the rule applies to a request of this principal for this model."""
        ids = {
            AppliesTo.EVERYONE: None,
            AppliesTo.PLAN: plan_id,
            AppliesTo.ACCOUNT: account_id,
            AppliesTo.KEY: credential_id,
        }
        if ids[self.applies_to] != self.applies_id:
            return False
        return self.model_pattern is None or fnmatchcase(model_id, self.model_pattern)

    def bucket(self, account_id: str, credential_id: str) -> str:
        """Return the bucket in which the requests of this principal are counted."""
        sharer = {
            CountedPer.RULE: "",
            CountedPer.ACCOUNT: f":account:{account_id}",
            CountedPer.KEY: f":key:{credential_id}",
        }
        return f"rule:{self.id}{sharer[self.counted_per]}"


def rates_to_json(rates: Rates) -> dict[str, int | None]:
    """Return limits by name, as the audit log and the API write them."""
    return {
        "requests_per_minute": rates.requests_per_minute,
        "tokens_per_minute": rates.tokens_per_minute,
        "concurrent_requests": rates.concurrent_requests,
        "requests_per_day": rates.requests_per_day,
        "requests_per_month": rates.requests_per_month,
    }
