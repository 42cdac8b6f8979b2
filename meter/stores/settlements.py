"""Settles batches of observed endings in Postgres: one transaction, all or nothing.

Order of locks, here and everywhere: holds by id, then accounts by id. Under a hold's lock its state
cannot change, so reading it and acting on it is safe; accounts come last, because new holds wait
for them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING
from uuid import UUID

from meter.errors import BrokenInvariant
from meter.holds import Hold, HoldState
from meter.settlement_batch import BatchPlan, HoldOnRecord, Settlement, plan_batch
from meter.stores.catalogue import to_price
from meter.stores.ledger_writes import write_postings
from meter.stores.postgres import PostgresConnection, PostgresPool, acquire, query
from meter.usage import Observation

if TYPE_CHECKING:
    from asyncpg import Record


class PostgresSettlements:
    """Where observed endings become charges."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def settle(self, observations: Sequence[Observation]) -> list[BatchPlan]:
        """Settle observations, each exactly once whatever arrives twice; returns what was done.

        Raises StoreUnavailable when Postgres is away: nothing of the batch that failed was
        applied, and the whole may be tried again.
        """
        return [await self._settle_distinct(batch) for batch in _distinct_batches(observations)]

    async def _settle_distinct(self, observations: Sequence[Observation]) -> BatchPlan:
        hold_ids = [observation.hold_id for observation in observations]
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(query("lock_holds"), hold_ids)
            rows = await connection.fetch(query("load_holds"), hold_ids)
            plan = plan_batch(observations, {row["id"]: _to_record(row) for row in rows})
            await _write(connection, plan)
        return plan


def _distinct_batches(observations: Sequence[Observation]) -> list[list[Observation]]:
    """Split so that no batch names a hold twice: the second must see what the first did."""
    batches: list[dict[UUID, Observation]] = []
    for observation in observations:
        for batch in batches:
            if observation.hold_id not in batch:
                batch[observation.hold_id] = observation
                break
        else:
            batches.append({observation.hold_id: observation})
    return [list(batch.values()) for batch in batches]


async def _write(connection: PostgresConnection, plan: BatchPlan) -> None:
    if plan.changes_nothing:
        return
    if plan.settlements:
        await connection.execute(query("insert_usage_records"), *_usage_columns(plan.settlements))
        await write_postings(
            connection,
            [posting for each in plan.settlements for posting in each.outcome.postings],
        )
    await _end_holds(connection, plan)
    if plan.unknown:
        await connection.execute(query("mark_holds_unknown"), *_unknown_columns(plan))
    if plan.conflicts:
        await connection.execute(query("insert_settlement_conflicts"), *_conflict_columns(plan))
    if plan.moves:
        await connection.execute(query("move_balances"), *_move_columns(plan))


async def _end_holds(connection: PostgresConnection, plan: BatchPlan) -> None:
    ids = [each.hold.id for each in plan.settlements] + plan.released
    if not ids:
        return
    states = [HoldState.SETTLED.value] * len(plan.settlements)
    states += [HoldState.RELEASED.value] * len(plan.released)
    status = await connection.execute(query("end_holds"), ids, states)
    if status != f"UPDATE {len(ids)}":
        raise BrokenInvariant("a hold ended while it was locked")


def _usage_columns(settlements: Sequence[Settlement]) -> tuple[list[object], ...]:
    rows = [_usage_row(each) for each in settlements]
    return tuple(list(column) for column in zip(*rows, strict=True))


def _usage_row(each: Settlement) -> tuple[object, ...]:
    seen, hold, outcome = each.observation, each.hold, each.outcome
    return (
        hold.id,
        hold.account_id,
        hold.credential_id,
        hold.model_id,
        hold.endpoint,
        seen.generation_id,
        seen.started_at,
        outcome.tokens.prompt,
        outcome.tokens.completion,
        outcome.tokens.cached,
        outcome.tokens.cache_write,
        outcome.tokens.reasoning,
        outcome.cost_picos,
        outcome.charge_picos,
        outcome.excess_picos,
        hold.markup_bps,
        hold.price_id,
        outcome.price_source.value,
        seen.latency_ms,
        seen.time_to_first_byte_ms,
        seen.status_code,
        seen.response_flags,
        seen.is_streaming,
        seen.source.value,
    )


def _move_columns(plan: BatchPlan) -> tuple[list[object], ...]:
    moves = plan.moves.values()
    return (
        list(plan.moves),
        [move.charge_picos for move in moves],
        [move.freed_picos for move in moves],
        [move.excess_picos for move in moves],
    )


def _unknown_columns(plan: BatchPlan) -> tuple[list[object], ...]:
    seen = [observation for observation, _ in plan.unknown]
    return (
        [observation.hold_id for observation in seen],
        [reason.value for _, reason in plan.unknown],
        [observation.generation_id for observation in seen],
        [observation.status_code for observation in seen],
        [observation.response_flags for observation in seen],
    )


def _conflict_columns(plan: BatchPlan) -> tuple[list[object], ...]:
    return (
        [observation.hold_id for observation, _ in plan.conflicts],
        [kind.value for _, kind in plan.conflicts],
        [json.dumps(asdict(observation), default=str) for observation, _ in plan.conflicts],
    )


_HOLD_FIELDS = [
    "id",
    "account_id",
    "credential_id",
    "model_id",
    "endpoint",
    "price_id",
    "markup_bps",
    "amount_picos",
    "flat_cost_picos",
]


def _to_record(row: "Record") -> HoldOnRecord:
    return HoldOnRecord(
        hold=Hold(**{name: row[name] for name in _HOLD_FIELDS}, state=HoldState(row["state"])),
        price=to_price(row, row["price_id"], row["priced_model_id"]),
        settled_cost_picos=row["settled_cost_picos"],
    )
