"""The queue between the access logs and the books: bounded, and emptied in batches."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from meter.errors import BrokenInvariant, StoreUnavailable
from meter.ingest.metrics import IngestMetrics
from meter.ingest.recent_endings import RecentEndings
from meter.process.periodic import until_done
from meter.settlement.port import SettlementStore
from meter.usage.usage import Observation

QUEUE_LIMIT: Final = 100_000
BATCH_LIMIT: Final = 500
RETRY_FIRST_S: Final = 0.1
RETRY_MOST_S: Final = 5.0
DRAIN_TIMEOUT_S: Final = 20.0
# Statuses by which a provider refuses us, not the client: bad system key, no credit left, the
# key's own limit. Envoy answers the client 503 then; a 403 about a prompt passes as it is.
OUR_REFUSALS: Final = frozenset({401, 402, 403})

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Countdown:
    """Signals that the last of several observations is settled."""

    left: int
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()


_Queued = tuple[Observation, _Countdown | None]


class Batcher:
    """Queues observations and settles them, however long Postgres is away.

    While one batch is being committed the next one forms, so batches grow with the load. A full
    queue makes `put` wait, which stops the reading of the access-log stream. An observation that
    was settled a moment ago and comes again unchanged, from the other log, is skipped.
    """

    def __init__(self, settlements: SettlementStore, metrics: IngestMetrics) -> None:
        self._settlements = settlements
        self._metrics = metrics
        self._recent = RecentEndings()
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue(QUEUE_LIMIT)
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """The number of observations that are not settled yet."""
        return self._queue.qsize()

    def start(self) -> asyncio.Task[None]:
        """Begin to settle in the background and return the task, which never ends by itself."""
        self._task = asyncio.create_task(self._run(), name="settlement")
        return self._task

    async def put(self, observation: Observation) -> None:
        """Queue one observation; waits while the queue is full."""
        await self._queue.put((observation, None))

    async def settle_all(self, observations: Sequence[Observation]) -> None:
        """Queue observations, and wait until each is in the books.

        An observation that can never be settled is counted, logged, and no longer waited for.
        """
        if not observations:
            return
        countdown = _Countdown(len(observations))
        for observation in observations:
            await self._queue.put((observation, countdown))
        await countdown.done.wait()

    async def drain(self) -> int:
        """Settle the queue, then stop; return how many observations were left unsettled."""
        try:
            await asyncio.wait_for(self._queue.join(), DRAIN_TIMEOUT_S)
        except TimeoutError:
            _log.error("settlement_drain_timed_out", waiting=self.waiting)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        return self.waiting

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH_LIMIT and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            fresh = self._recent.fresh([observation for observation, _ in batch])
            self._metrics.repeats.inc(len(batch) - len(fresh))
            for observation in fresh:
                status = observation.provider_status
                if status in OUR_REFUSALS and status != observation.status_code:
                    self._metrics.provider_refusals.labels(str(status)).inc()
                    _log.error(
                        "provider_refused_us", status=status, hold_id=observation.hold_id.hex
                    )
            if fresh:
                await until_done(
                    "settlement",
                    partial(self._settle, fresh),
                    RETRY_FIRST_S,
                    (StoreUnavailable,),
                    most_retry_s=RETRY_MOST_S,
                    on_outage=lambda _: self._metrics.retries.inc(),
                )
            for _, countdown in batch:
                self._queue.task_done()
                if countdown is not None:
                    countdown.count()

    async def _settle(self, batch: list[Observation]) -> None:
        with self._metrics.batch_seconds.time():
            try:
                committed = await self._settlements.settle(batch)
            except (StoreUnavailable, BrokenInvariant):
                # The first is tried again. The second ends the process: the holds stay, and show
                # which requests are not settled.
                raise
            except Exception:
                if len(batch) == 1:
                    # Its hold stays open, and the sweep finds it there.
                    self._metrics.failed.inc()
                    _log.exception("settlement_failed", hold_id=batch[0].hold_id.hex)
                    return
                # One bad entry must not hold up the others: halve the batch until it is alone.
                middle = len(batch) // 2
                await self._settle(batch[:middle])
                await self._settle(batch[middle:])
                return
        self._recent.remember(batch)
        for changes in committed:
            self._metrics.count(changes)
