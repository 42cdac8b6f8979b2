"""Settles batches of endings in Postgres: one transaction, all or nothing.

Order of locks, here and everywhere: holds by id, then accounts by id. Under a hold's lock its state
cannot change, so reading it and acting on it is safe. Whoever appends also has a chain of the
ledger, which nobody else waits for while another chain is free.

No batch waits long for one account. The first attempt waits for rows as long as an ordinary
transaction takes. Then a second attempt passes over locked rows and parks their observations in a
table, from where `meter.settlement.parked` settles them.
"""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog

from meter.errors import BrokenInvariant, RowLocked
from meter.holds.hold import CountedTokens, Hold, HoldState
from meter.ledger.append import write_postings
from meter.ledger.write_offs import Refund, take_back
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.pricing.catalogue_store import to_price
from meter.pricing.prices import Price
from meter.process.crash_points import CrashPoints, NoCrashPoints
from meter.process.halving import in_halves
from meter.settlement.billing_terms import TermsOf, default_terms
from meter.settlement.booking import Booking, Recorded
from meter.settlement.changes import (
    HoldOnRecord,
    SettlementChanges,
    changes_from_observations,
    changes_from_policy,
    changes_from_shares,
)
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.measured_excess import MeasuredExcesses
from meter.settlement.observation_json import observation_to_json
from meter.settlement.ordinary import OrdinarySettlements
from meter.settlement.outcome import ordinary_cost
from meter.settlement.policy import PolicyDecision
from meter.settlement.spreading import Share
from meter.settlement.usual_use import UsualUse
from meter.settlement.usual_use_store import UsualUses
from meter.usage.usage import Observation, Source, TokenCounts

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.settlement")
_LOAD_HOLDS: Final = _QUERIES["load_holds"]
# The query ends with its locking clause.
_LOAD_FREE_HOLDS: Final = f"{_LOAD_HOLDS.rstrip()} SKIP LOCKED"
_FIND_LIVE_HOLDS: Final = _QUERIES["find_live_holds"]
_LOCK_ACCOUNTS: Final = _QUERIES["lock_accounts"]
_LOCK_ENDED_HOLDS: Final = _QUERIES["lock_ended_holds"]
_TRY_ENDED_HOLDS: Final = _QUERIES["try_ended_holds"]
_PARK_ENDINGS: Final = _QUERIES["park_endings"]
_LOAD_ENDED_HOLDS: Final = _QUERIES["load_ended_holds"]
_INSERT_USAGE_RECORDS: Final = _QUERIES["insert_usage_records"]
_MARK_HOLDS_UNKNOWN: Final = _QUERIES["mark_holds_unknown"]
_INSERT_SETTLEMENT_CONFLICTS: Final = _QUERIES["insert_settlement_conflicts"]
_MOVE_MONEY: Final = _QUERIES["move_money"]
_SETTLE_LOTS: Final = _QUERIES["settle_lots"]
_END_HOLDS: Final = _QUERIES["end_holds"]
_FIND_PRICES: Final = _QUERIES["find_prices"]
_LOAD_USES: Final = _QUERIES["load_uses"]

# Arrivals that contradict one hold and are kept; more of them tell nothing new.
MOST_CONFLICTS: Final = 10
# The usual use of a model says something from so many requests on.
FEWEST_REQUESTS: Final = 10

# Nobody is asked and waited for where a provider has no records.
NO_TIME: Final = timedelta(0)

# An account that was locked a moment ago is not waited for during this time.
DOUBT_S: Final = 5.0
DOUBTED_ACCOUNTS: Final = 10_000

HoldRecords = Mapping[UUID, HoldOnRecord]
Decide = Callable[[HoldRecords, Set[UUID]], SettlementChanges]

_log = structlog.get_logger(__name__)


class _DoubtedAccounts:
    """The accounts that another transaction kept locked a moment ago; a helper of speed alone."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def among(self, account_ids: Set[str]) -> set[str]:
        if not self._until_s:
            return set()
        now_s = time.monotonic()
        return {one for one in account_ids if self._until_s.get(one, now_s) > now_s}

    def all(self) -> set[str]:
        return self.among(self._until_s.keys())

    def learn(self, free: Set[str], locked: Set[str]) -> None:
        for account_id in free:
            self._until_s.pop(account_id, None)
        for account_id in locked:
            if account_id not in self._until_s:
                _log.warning("settlements_parked", account_id=account_id)
            if account_id in self._until_s or len(self._until_s) < DOUBTED_ACCOUNTS:
                self._until_s[account_id] = time.monotonic() + DOUBT_S


class PostgresSettlementStore:
    """Implements `meter.settlement.port.SettlementStore` in Postgres."""

    def __init__(
        self,
        pool: PostgresPool,
        terms: LookupTerms = LookupTerms(),  # noqa: B008  # frozen, so sharing it is safe
        crash_points: CrashPoints = NoCrashPoints(),  # noqa: B008  # holds nothing
        uses: UsualUses | None = None,
        excesses: MeasuredExcesses | None = None,
        terms_of: TermsOf = default_terms,
        note_refused: Callable[[SettlementChanges], None] | None = None,
    ) -> None:
        self._pool = pool
        self._uses = uses
        self._excesses = excesses
        self._terms = terms
        self._note_refused = note_refused
        self._terms_of = terms_of
        self._crash_points = crash_points
        self._doubted = _DoubtedAccounts()
        self._ordinary = OrdinarySettlements(pool, crash_points)

    async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
        """Settle observations, each exactly once however often it arrives; return the changes.

        Ordinary endings are settled first, by one statement. Observations of rows that another
        transaction keeps locked are parked. Raises StoreUnavailable when Postgres is away; a part
        of the call may then be in the books. The whole call may be tried again.
        """
        committed: list[SettlementChanges] = []
        for batch in distinct_batches(observations):
            costs = ordinary_costs(batch)
            may_wait = True
            if costs:
                try:
                    changes = await self._settle_ordinary(batch, costs)
                except RowLocked:
                    # It waited for the row; nobody waits for the same row twice.
                    may_wait = False
                else:
                    if changes.ordinary:
                        committed.append(changes)
                    batch = [one for one in batch if one.hold_id not in changes.ordinary]
            if batch:
                committed += await self._settle_batch(batch, may_wait)
        return committed

    async def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> SettlementChanges:
        """End holds by policy where they are still live; each hold at most once in a batch.

        Raises RowLocked while another transaction keeps one of the holds or accounts locked, and
        StoreUnavailable as `settle` does.
        """
        hold_ids = [decision.hold_id for decision in decisions]
        # Read before any lock is taken: a statistic may be a moment old.
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LOAD_USES, hold_ids, FEWEST_REQUESTS)
        usual = {
            row["id"]: UsualUse(
                requests=row["requests"],
                prompt_bound_picos=int(row["prompt_bound_picos"]),
                prompt_picos=int(row["prompt_picos"]),
                completion_tokens=int(row["completion_tokens"]),
            )
            for row in rows
        }

        def decide(records: HoldRecords, locked: Set[UUID]) -> SettlementChanges:
            if locked:
                raise RowLocked("another transaction keeps a hold or its account locked")
            return changes_from_policy(decisions, records, usual)

        answered_by = {
            one.hold_id: one.seen.provider
            for one in decisions
            if one.seen is not None and one.seen.provider is not None
        }
        return await self._apply(hold_ids, decide, answered_by=answered_by)

    async def correct_guesses(self, shares: Sequence[Share]) -> SettlementChanges:
        """Correct charges by policy to their share of a total that became known.

        Each hold at most once in a batch. A charge that was corrected meanwhile, or whose row
        another transaction keeps locked, stays as it is. Raises StoreUnavailable as `settle` does.
        """
        return await self._apply(
            [share.hold_id for share in shares], partial(changes_from_shares, shares)
        )

    async def _settle_ordinary(
        self, batch: Sequence[Observation], costs: Mapping[UUID, int]
    ) -> SettlementChanges:
        changes = await self._ordinary.settle(
            [one for one in batch if one.hold_id in costs], costs, self._doubted.all()
        )
        if self._uses is not None:
            self._uses.note(changes)
        return changes

    async def _settle_batch(
        self, batch: list[Observation], may_wait: bool = True
    ) -> list[SettlementChanges]:
        # RowLocked: a row that nothing passes over, such as one of the look-ups, is locked.
        attempt = partial(self._settle_together, may_wait=may_wait)
        return await in_halves(batch, attempt, self._park, RowLocked)

    async def _settle_together(self, batch: list[Observation], may_wait: bool) -> SettlementChanges:
        return await self._apply(
            [observation.hold_id for observation in batch],
            partial(changes_from_observations, batch, terms_of=self._terms_of),
            may_wait,
            {one.hold_id: one.provider for one in batch if one.provider is not None},
        )

    async def _apply(
        self,
        hold_ids: list[UUID],
        decide: Decide,
        may_wait: bool = True,
        answered_by: Mapping[UUID, str] = MappingProxyType({}),
    ) -> SettlementChanges:
        if may_wait:
            try:
                return await self._attempt(hold_ids, decide, answered_by, may_wait=True)
            except RowLocked:
                pass
        return await self._attempt(hold_ids, decide, answered_by, may_wait=False)

    async def _attempt(
        self,
        hold_ids: list[UUID],
        decide: Decide,
        answered_by: Mapping[UUID, str],
        may_wait: bool,
    ) -> SettlementChanges:
        """Apply a batch in one transaction.

        With `may_wait` it waits for rows, but not for accounts in doubt. Raises RowLocked when the
        wait was too long.
        """
        async with acquire(self._pool) as connection:
            async with connection.transaction():
                records, locked = await _load(connection, hold_ids, may_wait)
                if answered_by:
                    priced = await _priced_by_answer(connection, records, answered_by)
                    records = {**records, **priced}
                accounts = {record.hold.account_id for record in records.values()}
                doubted = self._doubted.among(accounts) if may_wait else accounts
                if doubted:
                    left_out = set(
                        await connection.fetchval(_LOCK_ACCOUNTS, list(accounts), list(doubted))
                    )
                    self._doubted.learn(accounts - left_out, left_out)
                    locked |= {
                        hold_id
                        for hold_id, record in records.items()
                        if record.hold.account_id in left_out
                    }
                changes = decide(records, locked)
                await _write(connection, changes, self._terms)
                self._crash_points.reach("meter.before_commit")
            self._crash_points.reach("meter.after_commit")
        if self._uses is not None:
            self._uses.note(changes)
        if self._excesses is not None:
            self._excesses.note(changes)
        if self._note_refused is not None and changes.keys_refused:
            self._note_refused(changes)
        return changes

    async def _park(self, observation: Observation, _error: Exception) -> SettlementChanges:
        changes = SettlementChanges(parked=[observation])
        async with acquire(self._pool) as connection, connection.transaction():
            await _write(connection, changes, self._terms)
        return changes


async def _load(
    connection: PostgresConnection, hold_ids: list[UUID], may_wait: bool
) -> tuple[HoldRecords, set[UUID]]:
    """Lock the holds; return their records, and the ids of those that are locked already.

    A hold that is not in the books is in neither.
    """
    rows = await connection.fetch(_LOAD_HOLDS if may_wait else _LOAD_FREE_HOLDS, hold_ids)
    records = {row["id"]: _to_record(row, None) for row in rows}
    missing = [hold_id for hold_id in hold_ids if hold_id not in records]
    locked: set[UUID] = set()
    if missing and not may_wait:
        locked = {row["id"] for row in await connection.fetch(_FIND_LIVE_HOLDS, missing)}
        missing = [hold_id for hold_id in missing if hold_id not in locked]
    if missing:
        # They ended before, perhaps a moment ago and in another meter. Ended holds are immutable
        # and their rows cannot be locked by the service role, so advisory locks keep two meters
        # from deciding about the same one at the same time.
        if may_wait:
            await connection.execute(_LOCK_ENDED_HOLDS, missing)
        else:
            locked |= {row["id"] for row in await connection.fetch(_TRY_ENDED_HOLDS, missing)}
        ended = await connection.fetch(_LOAD_ENDED_HOLDS, missing)
        records |= {row["id"]: _to_record(row, _to_recorded(row)) for row in ended}
    return records, locked


async def _priced_by_answer(
    connection: PostgresConnection, records: HoldRecords, answered_by: Mapping[UUID, str]
) -> dict[UUID, HoldOnRecord]:
    """Return the records whose request another provider answered, with the price of that one.

    A hold has the price of the dearest provider that may answer. The price is the one that was in
    force when the hold was placed; without such a price the hold keeps its own.
    """
    others = {
        hold_id: record
        for hold_id, record in records.items()
        if answered_by.get(hold_id, record.price.provider) != record.price.provider
    }
    if not others:
        return {}
    rows = await connection.fetch(
        _FIND_PRICES,
        list(others),
        [answered_by[hold_id] for hold_id in others],
        [record.hold.model_id for record in others.values()],
        [record.hold.placed_at for record in others.values()],
    )
    prices = {row["hold_id"]: to_price(row, row["id"], row["model_id"]) for row in rows}
    for hold_id in others.keys() - prices.keys():
        _log.error(
            "price_of_answer_missing",
            hold_id=hold_id.hex,
            provider=answered_by[hold_id],
            model=others[hold_id].hold.model_id,
        )
    return {hold_id: _priced_at(others[hold_id], price) for hold_id, price in prices.items()}


def _priced_at(record: HoldOnRecord, price: Price) -> HoldOnRecord:
    """Return a record with the price of the provider that answered."""
    hold = record.hold
    flat_cost_picos = hold.flat_cost_picos if price.has_flat_parts else 0
    hold = replace(hold, price_id=price.id, flat_cost_picos=flat_cost_picos)
    return replace(record, hold=hold, price=price)


def ordinary_costs(batch: Sequence[Observation]) -> dict[UUID, int]:
    """Return the costs of those endings of a batch that any hold decides alike."""
    return {
        one.hold_id: cost_picos for one in batch if (cost_picos := ordinary_cost(one)) is not None
    }


def distinct_batches(observations: Sequence[Observation]) -> list[list[Observation]]:
    """Split observations so that no batch names a hold twice, and keep the order of each hold.

    The second observation of a hold must see what the first one did.
    """
    batches: list[dict[UUID, Observation]] = []
    for observation in observations:
        for batch in batches:
            if observation.hold_id not in batch:
                batch[observation.hold_id] = observation
                break
        else:
            batches.append({observation.hold_id: observation})
    return [list(batch.values()) for batch in batches]


async def _write(
    connection: PostgresConnection, changes: SettlementChanges, terms: LookupTerms
) -> None:
    if changes.is_empty:
        return
    if changes.endings:
        ended = await connection.fetchval(
            _END_HOLDS,
            [ending.hold_id for ending in changes.endings],
            [ending.state.value for ending in changes.endings],
            [ending.reason.value for ending in changes.endings],
        )
        if ended != len(changes.endings):
            raise BrokenInvariant("a hold ended while it was locked")
    if changes.unknown:
        seen = [observation for observation, _ in changes.unknown]
        await connection.execute(
            _MARK_HOLDS_UNKNOWN,
            [observation.hold_id for observation in seen],
            [reason.value for _, reason in changes.unknown],
            [observation.generation_id for observation in seen],
            [observation.status_code for observation in seen],
            [observation.response_flags for observation in seen],
            [observation_to_json(observation) for observation in seen],
            [
                NO_TIME if seen.hold_id in changes.unaskable else terms.first_delay
                for seen, _ in changes.unknown
            ],
            [
                NO_TIME if seen.hold_id in changes.unaskable else terms.patience_for(reason)
                for seen, reason in changes.unknown
            ],
        )
    if changes.conflicts:
        await connection.execute(
            _INSERT_SETTLEMENT_CONFLICTS,
            [observation.hold_id for observation, _ in changes.conflicts],
            [kind.value for _, kind in changes.conflicts],
            [observation_to_json(observation) for observation, _ in changes.conflicts],
            MOST_CONFLICTS,
        )
    if changes.parked:
        await connection.execute(
            _PARK_ENDINGS,
            [observation.hold_id for observation in changes.parked],
            [observation_to_json(observation) for observation in changes.parked],
        )
    if changes.moves:
        moves, spent = changes.moves.values(), changes.spending.values()
        with_lots = await connection.fetchval(
            _MOVE_MONEY,
            list(changes.moves),
            [move.charge_picos for move in moves],
            [move.freed_picos for move in moves],
            [move.excess_picos for move in moves],
            [spender for spender, _ in changes.spending],
            [placed_at for _, placed_at in changes.spending],
            [move.charge_picos for move in spent],
            [move.freed_picos for move in spent],
        )
        if with_lots and changes.bookings:
            await connection.execute(
                _SETTLE_LOTS,
                with_lots,
                [booking.hold.account_id for booking in changes.bookings],
                [booking.hold.placed_at for booking in changes.bookings],
                [booking.charge_picos for booking in changes.bookings],
            )
    if changes.bookings:
        batch = await write_postings(
            connection, [posting for booking in changes.bookings for posting in booking.postings]
        )
        rows = [
            (*_usage_row(booking), batch if booking.postings else None)
            for booking in changes.bookings
        ]
        columns = [list(column) for column in zip(*rows, strict=True)]
        await connection.execute(_INSERT_USAGE_RECORDS, *columns)
    await take_back(
        connection,
        [
            Refund(booking.hold.account_id, booking.hold.placed_at, -booking.charge_picos)
            for booking in changes.bookings
            if booking.charge_picos < 0
        ],
    )


def _usage_row(booking: Booking) -> tuple[object, ...]:
    """Return the columns of `insert_usage_records`, in its order, without the batch."""
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
        booking.own_key_cost_picos,
    )


_HOLD_FIELDS: Final = [
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
        cost_picos=row["cost_picos"],
        charge_picos=row["charge_picos"],
        last_revision=row["last_revision"],
        source=Source(row["source"]),
        is_provisional=row["source"] == Source.POLICY,
    )
