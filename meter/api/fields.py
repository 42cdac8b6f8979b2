"""The types of members that several resources share, with their limits."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Depends, Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from meter.api.cursors import MAX_CURSOR_CHARS
from meter.errors import InvalidAmount, NotFound
from meter.limits.limits import Rates, rates_to_json
from meter.money import parse_usd
from meter.scopes import Scope

MAX_PAGE: Final = 200
DEFAULT_PAGE: Final = 50
MAX_MARKUP_BPS: Final = 1_000_000
MAX_PER_MINUTE: Final = 1_000_000
MAX_TOKENS_PER_MINUTE: Final = 1_000_000_000
_RATES: Final = frozenset({"requests_per_minute", "tokens_per_minute", "concurrent_requests"})
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")
_ACCOUNT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
# Control characters, surrogates and line separators: Postgres cannot hold the first of them,
# and the others could rewrite the terminal of whoever lists them.
_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _printable(text: str) -> str:
    if any(unicodedata.category(char) in _UNPRINTABLE for char in text):
        raise ValueError("control characters (such as NUL and line ends) are not allowed")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def like(pattern: str, sentence: str) -> AfterValidator:
    """Refuse what does not match, with a sentence instead of the pattern."""
    form = re.compile(pattern)

    def check(text: str) -> str:
        if form.fullmatch(text) is None:
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def _budget(text: str) -> str:
    try:
        picos = parse_usd(text)
    except InvalidAmount as error:
        raise ValueError(str(error)) from None
    if picos < 0:
        raise ValueError("a budget must not be below zero")
    return text


def _instant(value: object) -> datetime:
    """Strict bodies take no text for an instant, although JSON has nothing else for it."""
    if not isinstance(value, str) or _INSTANT.fullmatch(value) is None:
        raise ValueError("write an instant with its offset, as 2026-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such instant") from None


def _amount(text: str) -> str:
    try:
        picos = parse_usd(text)
    except InvalidAmount as error:
        raise ValueError(str(error)) from None
    if picos == 0:
        raise ValueError("an amount must not be zero")
    return text


PlainText = Annotated[str, AfterValidator(_printable)]
Name = Annotated[
    PlainText, AfterValidator(_not_blank), Field(min_length=1, max_length=200, examples=["Ada"])
]
Email = Annotated[
    PlainText,
    like(r"[^@\s]+@[^@\s]+", "an email address has one @ and no spaces, as ada@example.com"),
    Field(min_length=3, max_length=320, examples=["ada@example.com"]),
]
AccountId = Annotated[
    str,
    like(
        r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}",
        "an id has up to 128 letters, digits and ._@- and begins with a letter or digit",
    ),
    Field(examples=["usr_4k2m7q3x"]),
]
ShortId = Annotated[
    str,
    like(
        r"[a-z0-9][a-z0-9_-]{0,63}",
        "an id has up to 64 of a-z, 0-9, _ and - and begins with a letter or digit",
    ),
]
PlanId = Annotated[ShortId, Field(examples=["standard"])]
ModelPattern = Annotated[
    str,
    like(r"[!-~]+", "a model's id or pattern has visible ASCII characters only"),
    Field(min_length=1, max_length=200, examples=["openai/*"]),
]
Budget = Annotated[
    str,
    AfterValidator(_budget),
    Field(max_length=64, description="US dollars as a decimal string", examples=["25.00"]),
]
PerMinute = Annotated[int, Field(ge=1, le=MAX_PER_MINUTE)]
TokensPerMinute = Annotated[int, Field(ge=1, le=MAX_TOKENS_PER_MINUTE)]
# Strict bodies take no text for a scope either.
ScopeName = Annotated[Scope, Field(strict=False)]
FutureInstant = Annotated[
    datetime, BeforeValidator(_instant), Field(examples=["2026-01-31T12:00:00Z"])
]
MarkupBps = Annotated[
    int, Field(ge=0, le=MAX_MARKUP_BPS, description="Basis points", examples=[2000])
]
Amount = Annotated[
    str,
    AfterValidator(_amount),
    Field(
        max_length=64,
        description="US dollars as a decimal string, at most 12 decimals, not zero",
        examples=["5.00", "-1.25"],
    ),
]
Usd = Annotated[str, Field(description="US dollars as a decimal string", examples=["4.999709"])]
Instant = Annotated[datetime, Field(examples=["2026-01-31T12:00:00Z"])]


def _user_id(user_id: Annotated[str, Path(examples=["usr_4k2m7q3x"])]) -> str:
    """What cannot be an id is answered like an id that nobody has (rule R14)."""
    if _ACCOUNT_ID.fullmatch(user_id) is None:
        raise NotFound("there is no such user")
    return user_id


UserId = Annotated[str, Depends(_user_id)]


class Body(BaseModel):
    """A request body: unknown members are refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Reply(BaseModel):
    """An answer's body; members may be added to it in later versions."""

    model_config = ConfigDict(from_attributes=True)


class RatesBody(Body):
    """What may come in a minute and at once: members that several bodies share."""

    requests_per_minute: PerMinute | None = None
    tokens_per_minute: TokensPerMinute | None = None
    concurrent_requests: PerMinute | None = None

    def given_rates(self) -> dict[str, int | None]:
        """Return the limits that the body names; None removes a limit."""
        return {name: getattr(self, name) for name in _RATES & self.model_fields_set}

    def to_rates(self) -> Rates:
        """Return the limits, where those that the body leaves out do not exist."""
        return Rates(**self.given_rates())


class LimitsBody(RatesBody):
    """What may come in a minute and at once; null is no limit of its own."""

    @classmethod
    def from_rates(cls, rates: Rates) -> "LimitsBody":
        return cls(**rates_to_json(rates))


class PageQuery(BaseModel):
    """Which part of a list to give."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows on a page")] = DEFAULT_PAGE
    cursor: Annotated[
        str | None,
        Query(max_length=MAX_CURSOR_CHARS, description="`next_cursor` of the page before"),
    ] = None


class Page(Reply):
    """One page of a list; `next_cursor` is null on the last."""

    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page")
