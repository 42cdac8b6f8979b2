"""The terms of a key as requests give them."""

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from ipaddress import IPv6Network, ip_network
from typing import Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field

from meter.api.fields import (
    Body,
    Budget,
    FutureInstant,
    Like,
    LimitsBody,
    ModelPattern,
    Name,
    NotNull,
    PlainText,
    ScopeName,
)
from meter.api.problems import FieldErrorReply, ProblemError
from meter.identity.keys.key_terms import KeyTerms, TermChanges
from meter.identity.principal import Budgets, Credential, OwnKeyMode
from meter.limits.limits import Rates
from meter.money import parse_usd
from meter.scopes import DEFAULT_SCOPES, Scope

MAX_EXPIRY_DAYS: Final = 3650
MOST_ALLOWED_MODELS: Final = 100
MOST_ALLOWED_ADDRESSES: Final = 64
MOST_TAGS: Final = 20
MAX_TAG_CHARS: Final = 64


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
        json_schema_extra={"uniqueItems": True},
        examples=[["openai/gpt-4o-mini", "anthropic/*"]],
    ),
]
AllowedAddresses = Annotated[
    list[
        Annotated[
            str,
            AfterValidator(_network),
            Field(max_length=64, json_schema_extra={"format": "network"}),
        ]
    ],
    AfterValidator(_unique),
    Field(
        min_length=1,
        max_length=MOST_ALLOWED_ADDRESSES,
        description="Networks that requests may come from; null or left out: every address",
        json_schema_extra={"uniqueItems": True},
        examples=[["10.0.0.0/8", "2001:db8::/32"]],
    ),
]
Scopes = Annotated[
    list[ScopeName],
    Field(min_length=1, max_length=len(Scope), json_schema_extra={"uniqueItems": True}),
]
Tags = Annotated[
    dict[
        Annotated[
            str,
            Like(
                r"[a-z0-9][a-z0-9_.-]{0,31}",
                "a tag's name has up to 32 of a-z, 0-9, _, . and - and begins with a letter "
                "or digit",
            ),
        ],
        Annotated[PlainText, Field(max_length=MAX_TAG_CHARS)],
    ],
    # Pydantic states the names as a pattern, but not that it allows no other names.
    Field(
        max_length=MOST_TAGS,
        examples=[{"team": "search"}],
        json_schema_extra={"additionalProperties": False},
    ),
]


class BudgetsBody(Body):
    """The most that a key may spend in each calendar period of UTC, and in its lifetime."""

    day: Budget | None = None
    week: Budget | None = Field(default=None, description="Weeks begin on Monday")
    month: Budget | None = None
    total: Budget | None = None

    def given_budgets(self) -> dict[str, int | None]:
        """Return the budgets that the body names, in pico-dollars; None removes a budget."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {
            f"{name}_picos": None if usd is None else parse_usd(usd) for name, usd in given.items()
        }


class KeyTermsBody(Body):
    """The terms of a new or changed key. Give one of `expires_in_days` and `expires_at` at most."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {name: {"type": "null"}}}
                for name in ("expires_in_days", "expires_at")
            ]
        }
    )

    expires_in_days: int | None = Field(default=None, ge=1, le=MAX_EXPIRY_DAYS, examples=[90])
    expires_at: FutureInstant | None = Field(
        default=None,
        description=f"In the future, by {MAX_EXPIRY_DAYS} days at most; null: never",
    )
    allowed_models: AllowedModels | None = None
    allowed_addresses: AllowedAddresses | None = None
    budgets: BudgetsBody | None = None
    limits: LimitsBody | None = Field(default=None, description="null: the limits of the plan")
    tags: Tags | None = None
    own_key_mode: Annotated[OwnKeyMode, Field(strict=False)] | None = Field(
        default=None,
        description="How requests with this key use your keys of providers; null: as the account",
    )

    def to_changes(self, now: datetime) -> TermChanges:
        """Return the changes that the body names. Raises ProblemError for an impossible expiry."""
        named = self.model_fields_set
        terms: dict[str, Any] = {}
        for name in ("allowed_models", "allowed_addresses"):
            if name in named:
                items = getattr(self, name)
                terms[name] = None if items is None else tuple(items)
        if "own_key_mode" in named:
            terms["own_key_mode"] = self.own_key_mode
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
    """A new key."""

    name: Name
    scopes: Scopes | None = Field(
        default=None, description="Left out: inference, models:read, usage:read"
    )

    def to_terms(self, now: datetime, inherited: KeyTerms | None = None) -> KeyTerms:
        """Return the terms; left out ones are those of `inherited`, or else no restriction."""
        base = inherited or KeyTerms(self.name)
        scopes = frozenset(self.scopes) if self.scopes is not None else base.scopes
        return self.to_changes(now).applied_to(replace(base, name=self.name, scopes=scopes))


class KeyChangesBody(KeyTermsBody):
    """New terms; members that are left out stay as they are, null removes a restriction."""

    name: Annotated[Name | None, NotNull()] = None
    scopes: Annotated[Scopes | None, NotNull()] = None

    def to_changes(self, now: datetime) -> TermChanges:
        """Return the changes that the body names. Raises ProblemError for an impossible expiry."""
        changes = super().to_changes(now)
        terms = dict(changes.terms)
        if self.name is not None:
            terms["name"] = self.name
        if self.scopes is not None:
            terms["scopes"] = frozenset(self.scopes)
        return replace(changes, terms=terms)


def inherited_terms(name: str, caller: Credential, scopes: frozenset[Scope]) -> KeyTerms:
    """Return the terms of a new key that its maker leaves out: those of the caller at most."""
    return KeyTerms(
        name=name,
        scopes=DEFAULT_SCOPES & scopes,
        allowed_models=caller.allowed_models,
        allowed_addresses=caller.allowed_addresses,
        expires_at=caller.expires_at,
        own_key_mode=caller.own_key_mode,
    )


def _invalid(member: str, message: str) -> ProblemError:
    error = FieldErrorReply(field=f"body.{member}", message=message, code="value_error")
    return ProblemError(422, "invalid_request", f"body.{member}: {message}", errors=[error])
