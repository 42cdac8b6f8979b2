"""Settles ordinary endings: one statement for a batch, one row for each request.

Nearly all endings are ordinary: a log names a cost, the hold is live, and the charge is within it.
The database then needs no decision of ours, only the cost. It applies the markup of the hold and
leaves out whatever is not ordinary after all; `settlement_store` decides about those.
"""

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Final
from uuid import UUID

from meter.limits.limits import TokenUse
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.pricing.catalogue_store import to_price
from meter.pricing.prices import Price
from meter.process.crash_points import CrashPoints
from meter.settlement.changes import ALL_ACCOUNTS, SettlementChanges, UseKey
from meter.settlement.usual_use import UsualUse, prompt_bound_picos
from meter.usage.usage import Observation

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.settlement")
_SETTLE_HOLDS: Final = _QUERIES["settle_holds"]
_LOAD_PRICES: Final = _QUERIES["load_prices"]

# Prices never change. More of them than this are loaded anew.
PRICES_REMEMBERED: Final = 10_000


class OrdinarySettlements:
    """Settles observations that any hold decides alike, as far as their holds are live."""

    def __init__(self, pool: PostgresPool, crash_points: CrashPoints) -> None:
        self._pool = pool
        self._crash_points = crash_points
        self._prices: dict[int, Price] = {}

    async def settle(
        self,
        observations: Sequence[Observation],
        costs: Mapping[UUID, int],
        doubted: Set[str],
    ) -> SettlementChanges:
        """Settle observations at these costs; return the changes, without those left out.

        Each hold appears at most once. Holds of doubted accounts are left out. Raises RowLocked
        when another transaction keeps a row locked, and then nothing was settled; raises
        StoreUnavailable in an outage.
        """
        # Holds are locked in the order of their ids, here as everywhere.
        batch = sorted(observations, key=lambda one: one.hold_id.int)
        # In memory, before any lock: a crash here has changed nothing.
        self._crash_points.reach("meter.before_commit")
        async with acquire(self._pool) as connection:
            settled = await connection.fetchrow(
                _SETTLE_HOLDS,
                [one.hold_id for one in batch],
                [costs[one.hold_id] for one in batch],
                *_columns(batch),
                list(doubted),
            )
        self._crash_points.reach("meter.after_commit")
        assert settled is not None
        missing = set(settled["price_ids"] or ()) - self._prices.keys()
        if missing:
            await self._load_prices(missing)
        return _changes(settled, {one.hold_id: one for one in batch}, costs, self._prices)

    async def _load_prices(self, price_ids: Set[int]) -> None:
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LOAD_PRICES, list(price_ids))
        if len(self._prices) + len(rows) > PRICES_REMEMBERED:
            self._prices.clear()
        self._prices |= {row["id"]: to_price(row, row["id"], row["model_id"]) for row in rows}


def _columns(batch: Sequence[Observation]) -> tuple[list[object], ...]:
    tokens = [one.usage.tokens for one in batch if one.usage is not None]
    return (
        [one.generation_id for one in batch],
        [one.started_at for one in batch],
        [one.prompt for one in tokens],
        [one.completion for one in tokens],
        [one.cached for one in tokens],
        [one.cache_write for one in tokens],
        [one.reasoning for one in tokens],
        [one.latency_ms for one in batch],
        [one.time_to_first_byte_ms for one in batch],
        [one.status_code for one in batch],
        [one.response_flags for one in batch],
        [one.is_streaming for one in batch],
        [one.source.value for one in batch],
    )


def _changes(
    settled: "Record",
    seen: Mapping[UUID, Observation],
    costs: Mapping[UUID, int],
    prices: Mapping[int, Price],
) -> SettlementChanges:
    changes = SettlementChanges()
    sums: dict[UseKey, list[int]] = {}
    if not settled["settled_ids"]:
        return changes
    for (
        hold_id,
        account_id,
        model_id,
        endpoint,
        price_id,
        markup_bps,
        amount_picos,
        max_tokens,
        placed_at,
        counted_tokens,
        buckets,
    ) in zip(*settled, strict=True):
        observation = seen[hold_id]
        assert observation.usage is not None
        tokens = observation.usage.tokens
        changes.ordinary[hold_id] = observation.source
        if buckets:
            more = tokens.prompt + tokens.completion - counted_tokens
            if more:
                changes.token_uses.append(TokenUse(tuple(buckets.split(" ")), more, placed_at))
        price = prices.get(price_id)
        if price is None:
            continue
        bound_picos = prompt_bound_picos(amount_picos, max_tokens, markup_bps, price)
        completion_picos = tokens.completion * price.completion_picos
        prompt_picos = max(0, costs[hold_id] - completion_picos)
        for owner in (account_id, ALL_ACCOUNTS):
            added = sums.setdefault((model_id, endpoint, owner), [0, 0, 0, 0])
            added[0] += 1
            added[1] += bound_picos
            added[2] += prompt_picos
            added[3] += tokens.completion
    changes.uses = {key: UsualUse(*added) for key, added in sums.items()}
    return changes
