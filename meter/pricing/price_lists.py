"""Price lists of administrators: effective-dated prices of a provider, in Postgres."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import Conflict, InvalidRequest
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.pricing.prices import ASSUMED_CONTEXT_TOKENS, PriceOrigin

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.pricing")
_LOCK_CATALOGUE: Final = _QUERIES["lock_catalogue"]
_FIND_PRICES_AT: Final = _QUERIES["find_prices_at"]
_IMPORT_PRICES: Final = _QUERIES["import_prices"]
_FIND_RERANKERS: Final = _QUERIES["find_rerankers"]

MOST_PRICES: Final = 10_000
# Clocks differ: an instant that passed so recently is still now.
PAST_ALLOWED: Final = timedelta(minutes=1)
_MEMBERS: Final = (
    "prompt_picos",
    "completion_picos",
    "request_picos",
    "reasoning_picos",
    "cache_read_picos",
    "cache_write_picos",
)


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A price of an administrator's list, in pico-dollars per unit; from now on without an instant.

    None means that this kind of token costs what a token of the prompt costs.
    """

    model_id: str
    effective_from: datetime | None
    prompt_picos: int
    completion_picos: int
    request_picos: int = 0
    reasoning_picos: int = 0
    cache_read_picos: int | None = None
    cache_write_picos: int | None = None

    @property
    def is_free(self) -> bool:
        """Return whether every part is zero."""
        return not any(getattr(self, name) for name in _MEMBERS)

    @property
    def is_of_searches(self) -> bool:
        """Return whether a request alone has a price, which is then that of a search unit."""
        return self.request_picos > 0 and not any(
            getattr(self, name) for name in _MEMBERS if name != "request_picos"
        )


@dataclass(frozen=True, slots=True)
class PriceImport:
    """The result of an import: how many prices are new, and how many were in force already."""

    new: int
    unchanged: int


class PriceLists:
    """Stores price lists. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def import_prices(
        self, provider: str, prices: Sequence[ListedPrice], is_zero_allowed: bool, actor: Actor
    ) -> PriceImport:
        """Store a list, all of it or nothing; a price that is in force already is not stored again.

        Raises InvalidRequest for a list that is too long or names a price twice, a price of nothing
        where that is not allowed, and an instant in the past. Raises Conflict where another price
        is planned for the same instant.
        """
        _require_sound(prices, is_zero_allowed)
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_CATALOGUE)
            rows = await connection.fetch(
                _FIND_PRICES_AT,
                provider,
                [price.model_id for price in prices],
                [price.effective_from for price in prices],
            )
            new = [
                price
                for price, row in zip(prices, rows, strict=True)
                if not _is_in_force(price, row)
            ]
            if new:
                await connection.execute(
                    _IMPORT_PRICES,
                    provider,
                    [price.model_id for price in new],
                    [price.effective_from for price in new],
                    *([getattr(price, name) for price in new] for name in _MEMBERS),
                    ASSUMED_CONTEXT_TOKENS,
                )
                detail = {"prices": len(new), "models": sorted({one.model_id for one in new})[:100]}
                event = AuditEvent("prices.imported", f"provider:{provider}", None, detail)
                await write_audit(connection, actor, event)
        return PriceImport(len(new), len(prices) - len(new))

    async def find_rerankers(self, model_ids: Sequence[str]) -> set[str]:
        """Return those of these models that are listed for reranking alone."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_FIND_RERANKERS, list(model_ids))
        return {row["id"] for row in rows}


def _require_sound(prices: Sequence[ListedPrice], is_zero_allowed: bool) -> None:
    """Raise InvalidRequest where the list itself is at fault."""
    if not 1 <= len(prices) <= MOST_PRICES:
        raise InvalidRequest(f"a price list has 1 to {MOST_PRICES} prices")
    seen = set()
    for price in prices:
        place = (price.model_id, price.effective_from)
        if place in seen:
            raise InvalidRequest(f"the list has two prices of {price.model_id} for one instant")
        seen.add(place)
        if price.is_free and not is_zero_allowed:
            raise InvalidRequest(
                f"the price of {price.model_id} is zero, so its requests would cost nothing:"
                " if that is meant, allow it (--allow-zero)"
            )


def _is_in_force(price: ListedPrice, row: "Record") -> bool:
    """Return whether a price need not be stored. Raises Conflict and InvalidRequest."""
    is_same = (
        row["is_known"]
        and row["origin"] == PriceOrigin.ADMINISTRATOR
        and all(row[name] == getattr(price, name) for name in _MEMBERS)
    )
    if is_same:
        return True
    at = price.effective_from
    if at is None:
        return False
    if row["is_known"] and row["effective_from"] == at:
        raise Conflict(
            f"{price.model_id} has another price from {at.isoformat()} on already, and a price"
            " is never changed: choose another instant"
        )
    if at < row["now"] - PAST_ALLOWED:
        raise InvalidRequest(
            f"the price of {price.model_id} would take effect at {at.isoformat()}, in the past,"
            " where requests are settled already: leave the instant out for now"
        )
    return False
