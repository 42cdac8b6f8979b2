"""Settles batches of endings in Postgres: one transaction, all or nothing.

Order of locks, here and everywhere: holds by id, then accounts by id, then the ledger's head.
Under a hold's lock its state cannot change, so reading it and acting on it is safe. The head comes
last: everybody who posts needs it, so nobody may hold it while waiting for an account.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from meter.errors import BrokenInvariant
from meter.holds.hold import CountedTokens, Hold, HoldState
from meter.ledger.append import write_postings
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.pricing.catalogue_store import to_price
from meter.process.crash_points import CrashPoints, NoCrashPoints
from meter.settlement.booking import Booking, BookingKind, Recorded
from meter.settlement.changes import BatchPlan, HoldOnRecord, plan_batch, plan_policy
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.observation_json import observation_to_json
from meter.settlement.policy import PolicyDecision
from meter.usage.usage import Observation, Source, TokenCounts

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.settlement")
_LOAD_HOLDS: Final = _QUERIES["load_holds"]
_LOCK_ENDED_HOLDS: Final = _QUERIES["lock_ended_holds"]
_LOAD_ENDED_HOLDS: Final = _QUERIES["load_ended_holds"]
_INSERT_USAGE_RECORDS: Final = _QUERIES["insert_usage_records"]
_MARK_HOLDS_UNKNOWN: Final = _QUERIES["mark_holds_unknown"]
_INSERT_SETTLEMENT_CONFLICTS: Final = _QUERIES["insert_settlement_conflicts"]
_MOVE_MONEY: Final = _QUERIES["move_money"]
_END_HOLDS: Final = _QUERIES["end_holds"]

Records = Mapping[UUID, HoldOnRecord]


class PostgresSettlements:
    """Where observed endings, and those decided by policy, become charges."""

    def __init__(
        self,
        pool: PostgresPool,
        terms: LookupTerms = LookupTerms(),  # noqa: B008  # frozen, so sharing it is safe
        crash_points: CrashPoints = NoCrashPoints(),  # noqa: B008  # holds nothing
    ) -> None:
        self._pool = pool
        self._terms = terms
        self._crash_points = crash_points

    async def settle(self, observations: Sequence[Observation]) -> list[BatchPlan]:
        """Settle observations, each exactly once whatever arrives twice; returns what was done.

        Raises StoreUnavailable when Postgres is away: nothing of the batch that failed was
        applied, and the whole may be tried again.
        """
        return [
            await self._apply(
                [observation.hold_id for observation in batch],
                partial(plan_batch, batch),
            )
            for batch in _distinct_batches(observations)
        ]

    async def decide(self, decisions: Sequence[PolicyDecision]) -> BatchPlan:
        """End holds by policy where they are still live; each hold at most once in a batch."""
        return await self._apply(
            [decision.hold_id for decision in decisions],
            partial(plan_policy, decisions),
        )

    async def _apply(
        self, hold_ids: list[UUID], to_plan: Callable[[Records], BatchPlan]
    ) -> BatchPlan:
        async with acquire(self._pool) as connection:
            async with connection.transaction():
                plan = to_plan(await _load(connection, hold_ids))
                await _write(connection, plan, self._terms)
                self._crash_points.reach("meter.before_commit")
            self._crash_points.reach("meter.after_commit")
        return plan


async def _load(connection: PostgresConnection, hold_ids: list[UUID]) -> Records:
    rows = await connection.fetch(_LOAD_HOLDS, hold_ids)
    records = {row["id"]: _to_record(row, None) for row in rows}
    missing = [hold_id for hold_id in hold_ids if hold_id not in records]
    if missing:
        # They ended before, perhaps a moment ago and in another meter: look where they went.
        await connection.execute(_LOCK_ENDED_HOLDS, missing)
        ended = await connection.fetch(_LOAD_ENDED_HOLDS, missing)
        records |= {row["id"]: _to_record(row, _to_recorded(row)) for row in ended}
    return records


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


async def _write(connection: PostgresConnection, plan: BatchPlan, terms: LookupTerms) -> None:
    if plan.changes_nothing:
        return
    if plan.bookings:
        await connection.execute(_INSERT_USAGE_RECORDS, *_usage_columns(plan.bookings))
    await _end_holds(connection, plan)
    if plan.unknown:
        delays = (terms.first_delay, terms.patience)
        await connection.execute(_MARK_HOLDS_UNKNOWN, *_unknown_columns(plan), *delays)
    if plan.conflicts:
        await connection.execute(_INSERT_SETTLEMENT_CONFLICTS, *_conflict_columns(plan))
    if plan.moves:
        await connection.execute(_MOVE_MONEY, *_move_columns(plan), *_spending_columns(plan))
    await write_postings(
        connection, [posting for booking in plan.bookings for posting in booking.postings]
    )


async def _end_holds(connection: PostgresConnection, plan: BatchPlan) -> None:
    if not plan.endings:
        return
    ended = await connection.fetchval(
        _END_HOLDS,
        [ending.hold_id for ending in plan.endings],
        [ending.state.value for ending in plan.endings],
        [ending.reason.value for ending in plan.endings],
    )
    if ended != len(plan.endings):
        raise BrokenInvariant("a hold ended while it was locked")


def _usage_columns(bookings: Sequence[Booking]) -> tuple[list[object], ...]:
    rows = [_usage_row(booking) for booking in bookings]
    return tuple(list(column) for column in zip(*rows, strict=True))


def _usage_row(booking: Booking) -> tuple[object, ...]:
    seen, hold = booking.observation, booking.hold
    return (
        hold.id,
        hold.placed_at,
        booking.revision,
        booking.kind.value,
        hold.account_id,
        hold.credential_id,
        hold.model_id,
        hold.endpoint,
        seen.generation_id,
        seen.started_at,
        booking.tokens.prompt,
        booking.tokens.completion,
        booking.tokens.cached,
        booking.tokens.cache_write,
        booking.tokens.reasoning,
        booking.cost_picos,
        booking.charge_picos,
        booking.excess_picos,
        hold.markup_bps,
        hold.price_id,
        booking.price_source.value,
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


def _spending_columns(plan: BatchPlan) -> tuple[list[object], ...]:
    moves = plan.spending.values()
    return (
        [subject for subject, _ in plan.spending],
        [placed_at for _, placed_at in plan.spending],
        [move.charge_picos for move in moves],
        [move.freed_picos for move in moves],
    )


def _unknown_columns(plan: BatchPlan) -> tuple[list[object], ...]:
    seen = [observation for observation, _ in plan.unknown]
    return (
        [observation.hold_id for observation in seen],
        [reason.value for _, reason in plan.unknown],
        [observation.generation_id for observation in seen],
        [observation.status_code for observation in seen],
        [observation.response_flags for observation in seen],
        [observation_to_json(observation) for observation in seen],
    )


def _conflict_columns(plan: BatchPlan) -> tuple[list[object], ...]:
    return (
        [observation.hold_id for observation, _ in plan.conflicts],
        [kind.value for _, kind in plan.conflicts],
        [observation_to_json(observation) for observation, _ in plan.conflicts],
    )


_HOLD_FIELDS = [
    "id",
    "placed_at",
    "account_id",
    "credential_id",
    "model_id",
    "endpoint",
    "price_id",
    "markup_bps",
    "amount_picos",
    "flat_cost_picos",
    "max_tokens",
    "pass_id",
]


def _to_record(row: "Record", recorded: Recorded | None) -> HoldOnRecord:
    return HoldOnRecord(
        hold=Hold(
            **{name: row[name] for name in _HOLD_FIELDS},
            state=HoldState(row["state"]),
            counted=CountedTokens(tuple(row["token_buckets"] or ()), row["counted_tokens"]),
        ),
        price=to_price(row, row["price_id"], row["priced_model_id"]),
        recorded=recorded,
        generation_id=row["generation_id"],
        has_entry=row["has_entry"],
    )


def _to_recorded(row: "Record") -> Recorded | None:
    if row["last_revision"] is None:
        return None
    return Recorded(
        tokens=TokenCounts(
            prompt=row["prompt_tokens"],
            completion=row["completion_tokens"],
            cached=row["cached_tokens"],
            cache_write=row["cache_write_tokens"],
            reasoning=row["reasoning_tokens"],
        ),
        cost_picos=row["provider_cost_picos"],
        charge_picos=row["charge_picos"],
        last_revision=row["last_revision"],
        source=Source(row["source"]),
        is_provisional=row["kind"] == BookingKind.PROVISIONAL,
    )
