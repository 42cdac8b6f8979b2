"""Holds in Postgres, placed in groups: checks that wait together share one statement and commit."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog

from meter.errors import Overloaded, RowLocked, StoreUnavailable
from meter.holds.fair_queue import FairQueue
from meter.holds.hold import HoldAnswer, HoldEnding, HoldPlaced, HoldRefused, HoldRequest, Refusal
from meter.postgres.pool import KeptConnection, PostgresConnection, PostgresPool, acquire, queries
from meter.process.crash_points import CrashPoints, NoCrashPoints
from meter.process.halving import in_halves

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.holds")
_FIND_AVAILABLE: Final = _QUERIES["find_available"]
_RELEASE_HOLDS: Final = _QUERIES["release_holds"]
_PLACE_HOLDS: Final = _QUERIES["place_holds"]

BATCH_LIMIT: Final = 64
WAITING_LIMIT: Final = 4_096
# Requests of one account that wait while another transaction keeps the account locked.
LANE_LIMIT: Final = 256
# Locked accounts that are waited for at once; each takes a connection for as long as it waits.
LANE_CONNECTIONS: Final = 2
# The weight of the latest commit in the running mean of how long one takes.
COMMIT_WEIGHT: Final = 0.2
HELD: Final = "held"
BUSY: Final = "busy"
RELEASE_RETRY_S: Final = 1.0
RELEASE_ATTEMPTS: Final = 120
DRAIN_TIMEOUT_S: Final = 5.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    request: HoldRequest
    account_id: str
    answer: asyncio.Future[HoldAnswer]


_Borrow = Callable[[], AbstractAsyncContextManager[PostgresConnection]]


class PostgresHolds:
    """Implements `meter.holds.hold.Holds`.

    One commit is under way at a time, and while it waits for the disk the next batch forms: two
    would make batches half as large, wait for the same accounts, and take more of the processor.
    A batch takes one request of each account in turn, so an account that floods waits for itself.
    `lifetime` is how long a hold stays before the sweep may end it.

    A batch never waits for an account that another transaction keeps locked. Requests of such an
    account move to a lane of their own, which waits for the lock on another connection, so that
    no other account waits with them.
    """

    def __init__(
        self,
        pool: PostgresPool,
        lifetime: timedelta,
        crash_points: CrashPoints = NoCrashPoints(),  # noqa: B008  # holds nothing
    ) -> None:
        self._pool = pool
        self._crash_points = crash_points
        self._lifetime = lifetime
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._commit_s = 0.0
        self._lanes: dict[str, deque[_Waiting]] = {}
        self._lane_turns = asyncio.Semaphore(LANE_CONNECTIONS)
        self._kept = KeptConnection(pool)
        self._is_committing = False
        self._background: set[asyncio.Task[None]] = set()

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """Set the estimate aside in a commit, or return the refusal.

        A cancelled call leaves no open hold: one that was placed meanwhile is released.
        Raises StoreUnavailable when Postgres is away, Overloaded when more calls wait than
        WAITING_LIMIT, or more than LANE_LIMIT for an account that is locked.
        """
        answer: asyncio.Future[HoldAnswer] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(request, request.account_id, answer)
        lane = self._lanes.get(request.account_id) if self._lanes else None
        if lane is not None:
            # The requests of an account keep their order, so this one goes behind those that wait.
            if len(lane) >= LANE_LIMIT:
                raise Overloaded("too many checks wait for an account that is locked")
            lane.append(waiting)
        else:
            if len(self._waiting) >= WAITING_LIMIT:
                raise Overloaded("too many checks wait for a hold")
            self._waiting.add(waiting)
            if not self._is_committing:
                self._is_committing = True
                self._start(self._commit_batches())
        try:
            return await answer
        except asyncio.CancelledError:
            self._abandon(waiting)
            raise

    async def find_available(self, account_id: str) -> int:
        """Return what new holds of the account may use, in pico-dollars; 0 for an unknown one.

        Raises StoreUnavailable.
        """
        async with acquire(self._pool) as connection:
            available: int | None = await connection.fetchval(_FIND_AVAILABLE, account_id)
        return available or 0

    @property
    def waiting(self) -> int:
        """Return how many requests wait for a commit, without those of locked accounts."""
        return len(self._waiting)

    @property
    def commit_s(self) -> float:
        """Return the running mean of how long a commit takes, in seconds."""
        return self._commit_s

    def expected_wait_s(self, account_id: str) -> float:
        """Return how long the next request of an account will wait for its hold, in seconds.

        0 where the next commit takes it along.
        """
        if len(self._waiting) < BATCH_LIMIT:
            return 0.0
        # One commit is under way, those ahead fill others, and then comes its own.
        return (self._waiting.ahead_of(account_id) // BATCH_LIMIT + 2) * self._commit_s

    async def release(self, hold_ids: Sequence[UUID]) -> int:
        """End holds without a charge; returns how many were still open. Idempotent.

        Raises RowLocked when another transaction keeps some of them locked; the others have ended.
        """
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(
                _RELEASE_HOLDS, list(hold_ids), HoldEnding.TAKEN_BACK.value
            )
        assert row is not None
        if row["locked"]:
            raise RowLocked(f"another transaction keeps {row['locked']} holds locked")
        return int(row["released"])

    def release_later(self, hold_ids: Sequence[UUID]) -> None:
        """End holds without a charge in the background, trying again through an outage."""
        self._start(self._release_until_done(list(hold_ids)))

    async def close(self) -> None:
        """Wait for commits and for the releases that they cause; call it after the last check."""
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while self._background:
                    await asyncio.wait(self._background)
        except TimeoutError:
            _log.error("hold_drain_timed_out", tasks=len(self._background))
        await self._kept.release()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _commit_batches(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                began_s = loop.time()
                await self._commit(self._waiting.take(BATCH_LIMIT), self._kept.use)
                self._commit_s += COMMIT_WEIGHT * (loop.time() - began_s - self._commit_s)
        finally:
            self._is_committing = False

    async def _commit_lane(self, account_id: str) -> None:
        lane = self._lanes[account_id]
        try:
            while lane:
                async with self._lane_turns:
                    batch = [lane.popleft() for _ in range(min(BATCH_LIMIT, len(lane)))]
                    await self._commit(batch, partial(acquire, self._pool), may_wait=True)
        finally:
            del self._lanes[account_id]

    async def _commit(self, batch: list[_Waiting], borrow: _Borrow, may_wait: bool = False) -> None:
        """Place a batch, and answer each request, or move it to its lane.

        A request that Postgres refuses fails alone.
        """
        attempt = partial(self._attempt, borrow=borrow, may_wait=may_wait)
        await in_halves(batch, attempt, self._refuse)

    async def _attempt(self, batch: list[_Waiting], borrow: _Borrow, may_wait: bool) -> None:
        """Place a batch in one commit. Raises what Postgres says against one of the requests."""
        self._crash_points.reach("authz.before_hold")
        requests = [waiting.request for waiting in batch]
        try:
            async with borrow() as connection:
                arguments = to_arguments(requests, self._lifetime, may_wait)
                rows = await connection.fetch(_PLACE_HOLDS, *arguments)
        except StoreUnavailable as error:
            # It is unknown whether the commit happened, so any hold that it left must be released.
            self.release_later([request.hold_id for request in requests])
            self._fail(batch, error)
            return
        self._crash_points.reach("authz.after_hold")
        found = {row["hold_id"]: row for row in rows}
        for waiting in batch:
            row = found[waiting.request.hold_id]
            if waiting.answer.cancelled():
                # The call was cancelled during the commit: nobody will use the hold.
                if row["verdict"] == HELD:
                    self.release_later([waiting.request.hold_id])
            elif row["verdict"] == BUSY:
                self._wait_in_lane(waiting)
            elif not waiting.answer.done():
                waiting.answer.set_result(to_answer(row))

    async def _refuse(self, waiting: _Waiting, error: Exception) -> None:
        _log.error("hold_refused_by_postgres", reason=type(error).__name__)
        self._fail([waiting], error)

    def _wait_in_lane(self, waiting: _Waiting) -> None:
        account_id = waiting.account_id
        lane = self._lanes.get(account_id)
        if lane is None:
            lane = self._lanes[account_id] = deque()
            self._start(self._commit_lane(account_id))
        lane.append(waiting)

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
                # A cancelled caller reads no result, and asyncio would log the unread exception.
                waiting.answer.exception()

    def _abandon(self, waiting: _Waiting) -> None:
        """Drop a request that was cancelled, or release the hold that it may still get."""
        if self._waiting.discard(waiting):
            return
        lane = self._lanes.get(waiting.account_id)
        if lane is not None and waiting in lane:
            lane.remove(waiting)
            return
        # The cancelled answer tells a commit that is still under way. One that is there already
        # stays as it is.
        waiting.answer.cancel()
        if not waiting.answer.cancelled() and waiting.answer.exception() is None:
            placed = waiting.answer.result()
            if isinstance(placed, HoldPlaced):
                self.release_later([placed.hold_id])

    async def _release_until_done(self, hold_ids: list[UUID]) -> None:
        for _ in range(RELEASE_ATTEMPTS):
            try:
                await self.release(hold_ids)
            except StoreUnavailable:
                await asyncio.sleep(RELEASE_RETRY_S)
            else:
                return
        _log.error("hold_release_given_up", holds=[hold_id.hex for hold_id in hold_ids])


def to_arguments(
    requests: Sequence[HoldRequest], lifetime: timedelta, may_wait: bool
) -> tuple[object, ...]:
    """Return the arguments of the query `place_holds`.

    A batch is one array of the composite type `hold_request`: it is encoded and decoded in less
    time than an array for each column.
    """
    return (
        list({request.account_id for request in requests}),
        [_to_row(request) for request in requests],
        lifetime,
        may_wait,
        any(
            request.account_concurrent is None
            and request.key_concurrent is None
            and not request.has_budget
            for request in requests
        ),
    )


def _to_row(request: HoldRequest) -> tuple[object, ...]:
    """Return the attributes of `hold_request`, in their order."""
    estimate, counted = request.estimate, request.counted
    return (
        request.hold_id,
        request.account_id,
        request.credential_id,
        request.pass_id,
        request.model_id,
        request.endpoint,
        estimate.price_id,
        estimate.markup_bps,
        estimate.fixed_picos,
        estimate.per_token_picos,
        estimate.min_tokens,
        estimate.max_tokens,
        estimate.flat_cost_picos,
        request.request_id,
        request.account_concurrent,
        request.key_concurrent,
        counted.tokens,
        counted.buckets or None,
    )


def to_answer(row: "Record") -> HoldAnswer:
    """Return the answer in a row of `place_holds`."""
    if row["verdict"] == HELD:
        return HoldPlaced(row["hold_id"], row["amount"], row["granted_tokens"])
    return HoldRefused(Refusal(row["verdict"]), row["amount"], row["available"])
