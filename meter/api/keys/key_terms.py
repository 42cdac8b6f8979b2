"""The terms of a key as requests give them."""

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from ipaddress import IPv6Network, ip_network
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from meter.api.fields import (
    Body,
    Budget,
    FutureInstant,
    LimitsBody,
    ModelPattern,
    Name,
    PlainText,
    ScopeName,
    like,
)
from meter.api.problems import FieldErrorReply, ProblemError
from meter.identity.keys.key_terms import KeyTerms, Period, TermChanges, budget_of
from meter.identity.principal import Budgets, Credential
from meter.limits.limits import Rates
from meter.money import format_usd, parse_usd
from meter.scopes import DEFAULT_SCOPES, Scope

MAX_EXPIRY_DAYS: Final = 3650
MOST_ALLOWED_MODELS: Final = 100
MOST_ALLOWED_ADDRESSES: Final = 64
MOST_TAGS: Final = 20
MAX_TAG_CHARS: Final = 64
_REQUIRED: Final = ("name", "scopes")


def _unique(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _network(text: str) -> str:
    try:
        network = ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(
                "bits are set beyond the length of the network; write it as 10.0.0.0/8, "
                "or one address as 192.0.2.7/32"
            ) from None
        raise ValueError("a network is written as 10.0.0.0/8 or 2001:db8::/32") from None
    if "%" in text:
        raise ValueError("a network has no zone, as %eth0 would be")
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError("write IPv4 networks as such, as 10.0.0.0/8")
    return str(network)


AllowedModels = Annotated[
    list[ModelPattern],
    AfterValidator(_unique),
    Field(
        min_length=1,
        max_length=MOST_ALLOWED_MODELS,
        description="Ids of models, or patterns with `*`; null or left out: every model",
        examples=[["openai/gpt-4o-mini", "anthropic/*"]],
    ),
]
AllowedAddresses = Annotated[
    list[Annotated[str, Field(max_length=64), AfterValidator(_network)]],
    AfterValidator(_unique),
    Field(
        min_length=1,
        max_length=MOST_ALLOWED_ADDRESSES,
        description="Networks from where requests may come; null or left out: from everywhere",
        examples=[["10.0.0.0/8", "2001:db8::/32"]],
    ),
]
Scopes = Annotated[list[ScopeName], Field(min_length=1, max_length=len(Scope))]
Tags = Annotated[
    dict[
        Annotated[
            str,
            like(
                r"[a-z0-9][a-z0-9_.-]{0,31}",
                "a tag's name has up to 32 of a-z, 0-9, _, . and - and begins with a letter "
                "or digit",
            ),
        ],
        Annotated[PlainText, Field(max_length=MAX_TAG_CHARS)],
    ],
    Field(max_length=MOST_TAGS, examples=[{"team": "search"}]),
]


class BudgetsBody(Body):
    """The most that a key may spend in a calendar period of UTC, and in all its life."""

    day: Budget | None = None
    week: Budget | None = Field(default=None, description="Weeks begin on Monday")
    month: Budget | None = None
    total: Budget | None = None

    @classmethod
    def from_budgets(cls, budgets: Budgets) -> "BudgetsBody":
        limits = {period: budget_of(budgets, period) for period in Period}
        return cls(
            **{
                period.value: None if picos is None else format_usd(picos)
                for period, picos in limits.items()
            }
        )

    def given_budgets(self) -> dict[str, int | None]:
        """Return the budgets that the body names, in pico-dollars; None removes a budget."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {
            f"{name}_picos": None if usd is None else parse_usd(usd) for name, usd in given.items()
        }


class KeyTermsBody(Body):
    """What may be said of a key, new or changed."""

    expires_in_days: int | None = Field(default=None, ge=1, le=MAX_EXPIRY_DAYS, examples=[90])
    expires_at: FutureInstant | None = Field(default=None, description="null: never")
    allowed_models: AllowedModels | None = None
    allowed_addresses: AllowedAddresses | None = None
    budgets: BudgetsBody | None = None
    limits: LimitsBody | None = Field(default=None, description="Where null, the plan's apply")
    tags: Tags | None = None

    def to_changes(self, now: datetime) -> TermChanges:
        """Return the changes that the body names. Raises ProblemError for an impossible expiry."""
        named = self.model_fields_set
        terms: dict[str, Any] = {}
        for name in ("allowed_models", "allowed_addresses"):
            if name in named:
                items = getattr(self, name)
                terms[name] = None if items is None else tuple(items)
        if "tags" in named:
            terms["tags"] = self.tags or {}
        if named & {"expires_at", "expires_in_days"}:
            terms["expires_at"] = self._end(now)
        # null for budgets or limits removes all of them.
        budgets: dict[str, int | None] = {}
        if "budgets" in named:
            budgets = asdict(Budgets()) if self.budgets is None else self.budgets.given_budgets()
        rates: dict[str, int | None] = {}
        if "limits" in named:
            rates = asdict(Rates()) if self.limits is None else self.limits.given_rates()
        return TermChanges(terms, budgets, rates)

    def _end(self, now: datetime) -> datetime | None:
        if self.expires_in_days is not None:
            if self.expires_at is not None:
                raise _invalid("expires_at", "give expires_at or expires_in_days, not both")
            return now + timedelta(days=self.expires_in_days)
        if self.expires_at is None:
            return None
        if not now < self.expires_at <= now + timedelta(days=MAX_EXPIRY_DAYS):
            message = f"must be in the future, by {MAX_EXPIRY_DAYS} days at most"
            raise _invalid("expires_at", message)
        return self.expires_at


class NewKeyBody(KeyTermsBody):
    """A key to be made."""

    name: Name
    scopes: Scopes | None = Field(
        default=None, description="Left out: inference, models:read, usage:read"
    )

    def to_terms(self, now: datetime, inherited: KeyTerms | None = None) -> KeyTerms:
        """The terms, with what is left out as `inherited`, or else without restrictions."""
        base = inherited or KeyTerms(self.name)
        scopes = frozenset(self.scopes) if self.scopes is not None else base.scopes
        return self.to_changes(now).applied_to(replace(base, name=self.name, scopes=scopes))


class KeyChangesBody(KeyTermsBody):
    """New terms; what is left out stays as it is, null takes a restriction away."""

    name: Name | None = None
    scopes: Scopes | None = None

    def to_changes(self, now: datetime) -> TermChanges:
        """Return the changes. Raises ProblemError where a member is null that must not be."""
        changes = super().to_changes(now)
        for name in _REQUIRED:
            if name in self.model_fields_set and getattr(self, name) is None:
                raise _invalid(name, "must not be null")
        terms = dict(changes.terms)
        if self.name is not None:
            terms["name"] = self.name
        if self.scopes is not None:
            terms["scopes"] = frozenset(self.scopes)
        return replace(changes, terms=terms)


def inherited_terms(name: str, caller: Credential, scopes: frozenset[Scope]) -> KeyTerms:
    """What a new key has where its maker says nothing: no more than the caller."""
    return KeyTerms(
        name=name,
        scopes=DEFAULT_SCOPES & scopes,
        allowed_models=caller.allowed_models,
        allowed_addresses=caller.allowed_addresses,
        expires_at=caller.expires_at,
    )


def _invalid(member: str, message: str) -> ProblemError:
    error = FieldErrorReply(field=f"body.{member}", message=message, code="value_error")
    return ProblemError(422, "invalid_request", f"body.{member}: {message}", errors=[error])
