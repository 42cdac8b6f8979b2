"""Limits: how much a minute may bring, and who shares it. Pure.

A limit is counted in a bucket. Whoever shares a bucket shares the limit: `key:<id>`,
`account:<id>`, `rule:<id>` with the account, the key or nothing behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, Protocol

WINDOW_S: Final = 60


class LimitKind(StrEnum):
    """What is counted: requests, or model tokens."""

    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Rates:
    """What one key or account may do; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


NO_RATES: Final = Rates()


def key_of(kind: LimitKind, bucket: str) -> str:
    """Where a window is kept: one of a kind for each bucket."""
    return f"{kind.value}:{bucket}"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `per_minute` of a kind in any 60 seconds, for all who share the bucket.

    In shadow mode it is counted and reported, and refuses nobody. Buckets hold no spaces. `key`
    names kind and bucket in one; it is made once, because each check asks for it several times.
    """

    bucket: str
    kind: LimitKind
    per_minute: int
    is_shadow: bool = False
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Make the key."""
        object.__setattr__(self, "key", key_of(self.kind, self.bucket))


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Model tokens to count in buckets of tokens beside those counted when a request was admitted.

    Below zero it gives back what was counted too much, out of what was counted at `counted_at` or
    before; None stands for a moment ago.
    """

    buckets: tuple[str, ...]
    tokens: int
    counted_at: datetime | None = None


class AppliesTo(StrEnum):
    """Whose requests a rule looks at."""

    EVERYONE = "everyone"
    PLAN = "plan"
    ACCOUNT = "account"
    KEY = "key"


class CountedPer(StrEnum):
    """Who shares one bucket of a rule: all that it applies to, or each account or key alone."""

    RULE = "rule"
    ACCOUNT = "account"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A limit beside those of keys, accounts and plans: for a whole plan, or for some models.

    `model_pattern` is an id or a glob; None means every model.
    """

    id: str
    applies_to: AppliesTo
    applies_id: str | None
    counted_per: CountedPer
    model_pattern: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    is_shadow: bool

    def covers(self, plan_id: str, account_id: str, credential_id: str, model_id: str) -> bool:
        """Whether a request of this principal for this model counts here."""
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
        """Where it is counted for that principal."""
        sharer = {
            CountedPer.RULE: "",
            CountedPer.ACCOUNT: f":account:{account_id}",
            CountedPer.KEY: f":key:{credential_id}",
        }
        return f"rule:{self.id}{sharer[self.counted_per]}"


class LimitRules(Protocol):
    """Where limit rules are kept."""

    async def list_all(self) -> Sequence[LimitRule]:
        """All of them, in order of their ids."""
        ...


def told_rates(rates: Rates) -> dict[str, int | None]:
    """Limits as the audit log tells them."""
    return {
        "requests_per_minute": rates.requests_per_minute,
        "tokens_per_minute": rates.tokens_per_minute,
        "concurrent_requests": rates.concurrent_requests,
    }
