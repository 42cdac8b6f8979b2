"""The types of members that several resources share, with their limits."""

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from meter.api.cursors import MAX_CURSOR_CHARS
from meter.errors import InvalidAmount, NotFound
from meter.money import parse_usd

MAX_PAGE: Final = 200
DEFAULT_PAGE: Final = 50
MAX_MARKUP_BPS: Final = 1_000_000
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
    Field(min_length=3, max_length=320, pattern=r"^[^@\s]+@[^@\s]+$", examples=["ada@example.com"]),
]
AccountId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$", examples=["usr_4k2m7q3x"])
]
PlanId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", examples=["standard"])]
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
