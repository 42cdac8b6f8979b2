"""The types of members that several resources share, with their limits.

Each type states its form twice from one source: as a check, which explains a fault in a sentence,
and in the schema of the OpenAPI document, so that every request that fits the schema is accepted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self
from uuid import UUID

from fastapi import Depends, Path, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from meter.errors import NotFound
from meter.limits.limits import Rates
from meter.money import format_usd
from meter.providers.key_store import MAX_KEY_CHARS
from meter.scopes import ADMIN_SCOPES, Scope

MAX_PAGE: Final = 200
DEFAULT_PAGE: Final = 50
MAX_CURSOR_CHARS: Final = 512
MAX_MARKUP_BPS: Final = 1_000_000
MAX_PER_MINUTE: Final = 1_000_000
MAX_PER_MONTH: Final = 1_000_000_000
MAX_TOKENS_PER_MINUTE: Final = 1_000_000_000
MAX_REASON_CHARS: Final = 500
_RATES: Final = frozenset(field.name for field in fields(Rates))
_INSTANT: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)"
# Control characters and line separators: Postgres cannot hold the first of them, and the others
# could rewrite the terminal of whoever lists them.
_CONTROLS: Final = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")
PRINTABLE: Final = rf"[^{_CONTROLS}]"
_NOT_BLANK: Final = rf"{PRINTABLE}*[^\s{_CONTROLS}]{PRINTABLE}*"
_EMAIL_PART: Final = rf"[^@\s{_CONTROLS}]+"
# Below 9,200,000 US dollars, so that every amount of this form fits a ledger entry.
_USD: Final = r"(0|[1-9][0-9]{0,5}|[1-8][0-9]{6}|9[01][0-9]{5})(\.[0-9]{1,12})?"
_USD_SENTENCE: Final = (
    "a decimal string of US dollars below 9,200,000 with at most 12 decimals, such as '5.00'"
)


@dataclass(frozen=True, slots=True)
class Like:
    """The form of a text: the pattern of the whole text, and the sentence of a refusal.

    The pattern also stands in the schema, so it may use only what Python, ECMAScript and Rust
    read alike.
    """

    pattern: str
    sentence: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        form = re.compile(self.pattern)

        def check(text: str) -> str:
            # JSON can escape half of a surrogate pair, which is no text that Postgres could hold.
            if form.fullmatch(text) is None or _SURROGATES.search(text):
                raise ValueError(self.sentence)
            return text

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}


class NotNull:
    """Marks a member that may be left out, but not be null."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(value: object) -> object:
            if value is None:
                raise ValueError("must not be null; leave it out to keep the present value")
            return value

        return core_schema.no_info_before_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(handler(schema)["anyOf"][0])


def _instant(value: object) -> datetime:
    """Read an instant, which JSON can only write as text, where a strict body refuses text."""
    if not isinstance(value, str) or re.fullmatch(_INSTANT, value) is None:
        raise ValueError("write an instant with its offset, as 2026-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such instant") from None


def path_id(name: str, pattern: str, missing: str, example: str) -> Any:
    """Return the dependency that reads the id called `name` from the path.

    Text that cannot be an id gets the answer of an id that does not exist, so that nobody can tell
    the ids of others by their form.
    """
    form = re.compile(pattern)

    async def read(
        text: Annotated[
            str,
            Path(alias=name, examples=[example], json_schema_extra={"pattern": f"^{pattern}$"}),
        ],
    ) -> str:
        if form.fullmatch(text) is None:
            raise NotFound(missing)
        return text

    return Depends(read)


def _no_admin_scope(scope: Scope) -> Scope:
    if scope in ADMIN_SCOPES:
        raise ValueError("users cannot give admin scopes to their keys")
    return scope


PlainText = Annotated[
    str, Like(rf"{PRINTABLE}*", "control characters (such as NUL and line ends) are not allowed")
]
NotBlankText = Annotated[
    str, Like(_NOT_BLANK, "must not be blank, nor contain control characters such as line ends")
]
Name = Annotated[NotBlankText, Field(min_length=1, max_length=200, examples=["Ada"])]
Reason = Annotated[
    NotBlankText, Field(min_length=1, max_length=MAX_REASON_CHARS, examples=["paid invoice 17"])
]
Email = Annotated[
    str,
    Like(
        f"{_EMAIL_PART}@{_EMAIL_PART}",
        "an email address has one @ and no spaces, as ada@example.com",
    ),
    Field(min_length=3, max_length=320, examples=["ada@example.com"]),
]
_ACCOUNT_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}"
AccountId = Annotated[
    str,
    Like(
        _ACCOUNT_ID,
        "an id has up to 128 letters, digits and ._@- and begins with a letter or digit",
    ),
    Field(examples=["usr_4k2m7q3x"]),
]
CREDENTIAL_ID: Final = r"[a-z2-7]{16}"
SHORT_ID: Final = r"[a-z0-9][a-z0-9_-]{0,63}"
ShortId = Annotated[
    str,
    Like(SHORT_ID, "an id has up to 64 of a-z, 0-9, _ and - and begins with a letter or digit"),
]
PlanId = Annotated[ShortId, Field(examples=["standard"])]
ModelPattern = Annotated[
    str,
    Like(r"[!-~]+", "a model's id or pattern has visible ASCII characters only"),
    Field(min_length=1, max_length=200, examples=["openai/*"]),
]
Budget = Annotated[
    str,
    Like(_USD, f"a budget is {_USD_SENTENCE}"),
    Field(description="US dollars as a decimal string", examples=["25.00"]),
]
Debt = Annotated[
    str,
    Like(_USD, f"a debt is {_USD_SENTENCE}"),
    Field(description="US dollars as a decimal string", examples=["2.50"]),
]
PerMinute = Annotated[int, Field(ge=1, le=MAX_PER_MINUTE)]
PerMonth = Annotated[
    int, Field(ge=1, le=MAX_PER_MONTH, description="By the calendar, in UTC", examples=[1000])
]
TokensPerMinute = Annotated[int, Field(ge=1, le=MAX_TOKENS_PER_MINUTE)]
# Strict bodies take no text for a scope either.
ScopeName = Annotated[Scope, Field(strict=False)]
UserScope = Annotated[
    ScopeName,
    AfterValidator(_no_admin_scope),
    WithJsonSchema({"type": "string", "enum": sorted(set(Scope) - ADMIN_SCOPES)}),
]
SortedScopes = Annotated[list[Scope], BeforeValidator(sorted)]
FutureInstant = Annotated[
    datetime,
    BeforeValidator(_instant),
    Field(examples=["2026-01-31T12:00:00Z"], json_schema_extra={"pattern": f"^{_INSTANT}$"}),
]
MarkupBps = Annotated[
    int, Field(ge=0, le=MAX_MARKUP_BPS, description="Basis points", examples=[2000])
]
Amount = Annotated[
    str,
    Like(rf"(?!-?0(\.0+)?$)-?{_USD}", f"an amount is {_USD_SENTENCE}, and not zero"),
    Field(
        description="US dollars as a decimal string, at most 12 decimals, not zero",
        examples=["5.00", "-1.25"],
    ),
]
PositiveAmount = Annotated[
    str,
    Like(rf"(?!0(\.0+)?$){_USD}", f"an amount is {_USD_SENTENCE}, and not zero"),
    Field(description="US dollars as a decimal string, above zero", examples=["10.00"]),
]
SoldFor = Annotated[
    str,
    Like(
        r"(0\.[5-9][0-9]?|[1-9][0-9]{0,5}(\.[0-9]{1,2})?)",
        "a price is a decimal string of 0.50 US dollars or more in whole cents, such as '19.00'",
    ),
    Field(description="US dollars as a decimal string, in whole cents", examples=["19.00"]),
]
Payable = Annotated[
    str,
    Like(
        r"(0|[1-9][0-9]{0,5})(\.[0-9]{1,2})?",
        "a payment is a decimal string of US dollars with at most 2 decimals, such as '25.00'",
    ),
    Field(description="US dollars as a decimal string, in whole cents", examples=["25.00"]),
]
# Replies are read from objects that have pico-dollars and UUIDs.
Usd = Annotated[
    str,
    BeforeValidator(lambda money: format_usd(money) if isinstance(money, int) else money),
    Field(description="US dollars as a decimal string", examples=["4.999709"]),
]
HexId = Annotated[str, BeforeValidator(lambda one: one.hex if isinstance(one, UUID) else one)]
Instant = Annotated[datetime, Field(examples=["2026-01-31T12:00:00Z"])]
PROVIDER_ID: Final = r"[a-z][a-z0-9_-]{0,39}"
ProviderPath = Annotated[
    str, path_id("provider", PROVIDER_ID, "there is no such provider", "openai")
]
ProviderKeyText = Annotated[
    SecretStr,
    Field(
        min_length=1,
        max_length=MAX_KEY_CHARS,
        description="Visible ASCII characters",
        json_schema_extra={"pattern": "^[!-~]+$"},
    ),
]
UserId = Annotated[str, path_id("user_id", _ACCOUNT_ID, "there is no such user", "usr_4k2m7q3x")]


class Body(BaseModel):
    """The body of a request. Unknown members are refused, and no value is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _read_whole_numbers(cls, body: object) -> object:
        """Read 5.0 as 5, since JSON Schema counts it among the integers."""
        if not isinstance(body, dict):
            return body
        return {
            name: int(one) if isinstance(one, float) and one.is_integer() else one
            for name, one in body.items()
        }


class Reply(BaseModel):
    """The body of a reply. Later versions may add members."""

    model_config = ConfigDict(from_attributes=True)


class RatesBody(Body):
    """Limits of requests and tokens in a minute, of requests at once, in a day and in a month."""

    requests_per_minute: PerMinute | None = None
    tokens_per_minute: TokensPerMinute | None = None
    concurrent_requests: PerMinute | None = None
    requests_per_day: PerMonth | None = None
    requests_per_month: PerMonth | None = None

    def given_rates(self) -> dict[str, int | None]:
        """Return the limits that the body names; None removes a limit."""
        return {name: getattr(self, name) for name in _RATES & self.model_fields_set}

    def to_rates(self) -> Rates:
        """Return the limits, where those that the body leaves out do not exist."""
        return Rates(**self.given_rates())


class LimitsBody(RatesBody):
    """Limits of requests and tokens in a minute, and of requests at once; null sets none.

    Days and months are those of the calendar in UTC.
    """


class LimitsReply(Reply):
    """Limits of requests and tokens in a minute, and of requests at once; null is no limit."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    requests_per_day: int | None
    requests_per_month: int | None


class PageQuery(BaseModel):
    """The part of a list to return."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows on a page")] = DEFAULT_PAGE
    cursor: Annotated[
        str | None,
        Query(max_length=MAX_CURSOR_CHARS, description="`next_cursor` of the page before"),
    ] = None


class Page(Reply):
    """One page of a list; `next_cursor` is null on the last."""

    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page")

    @classmethod
    def of(cls, rows: Sequence[object], next_cursor: str | None) -> Self:
        """Return a page with these rows."""
        return cls.model_validate({"data": rows, "next_cursor": next_cursor})


def either(*alternatives: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema for objects whose members fit one of these alternatives.

    An alternative names members with the types that they must have. A type "null" includes a
    member that is left out; a member of every other type is required.
    """
    return {
        "anyOf": [
            {
                "properties": {
                    name: {"type": form} if isinstance(form, str) else form
                    for name, form in members.items()
                },
                "required": [name for name, form in members.items() if form != "null"],
            }
            for members in alternatives
        ]
    }
