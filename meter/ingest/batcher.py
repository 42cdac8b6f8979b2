"""Between the access log and the books: a bounded queue, and batches that form by themselves."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from meter.errors import BrokenInvariant, StoreUnavailable
from meter.ingest.metrics import IngestMetrics
from meter.ingest.recent_endings import RecentEndings
from meter.settlement.port import SettlementStore
from meter.usage.usage import Observation

QUEUE_LIMIT: Final = 100_000
BATCH_LIMIT: Final = 500
RETRY_FIRST_S: Final = 0.1
RETRY_MOST_S: Final = 5.0
DRAIN_TIMEOUT_S: Final = 20.0
# Statuses by which a provider refuses us, not the client: bad system key, no credit left.
OUR_REFUSALS: Final = frozenset({401, 402})

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Countdown:
    """Tells when the last of some observations is done with."""

    left: int
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()


_Queued = tuple[Observation, _Countdown | None]


class Batcher:
    """Takes observations in and settles them, however long Postgres is away.

    While one batch is being committed the next one forms, so batches grow with the load. A full
    queue makes `put` wait, which stops the reading of the access-log stream. What was settled a
    moment ago and comes again unchanged, by the other log, is passed over.
    """

    def __init__(self, settlements: SettlementStore, metrics: IngestMetrics) -> None:
        self._settlements = settlements
        self._metrics = metrics
        self._recent = RecentEndings()
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue(QUEUE_LIMIT)
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many observations are not settled yet."""
        return self._queue.qsize()

    def start(self) -> asyncio.Task[None]:
        """Begin to settle in the background; the task never ends by itself."""
        self._task = asyncio.create_task(self._run(), name="settlement")
        return self._task

    async def put(self, observation: Observation) -> None:
        """Take one observation in; waits while the queue is full."""
        await self._queue.put((observation, None))

    async def settle_all(self, observations: Sequence[Observation]) -> None:
        """Take observations in, and wait until each is in the books.

        One that cannot be settled at all is counted and logged, and not waited for any longer.
        """
        if not observations:
            return
        countdown = _Countdown(len(observations))
        for observation in observations:
            await self._queue.put((observation, countdown))
        await countdown.done.wait()

    async def drain(self) -> int:
        """Settle what is queued, then stop; returns how many observations were left."""
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
            await self._settle_fresh([observation for observation, _ in batch])
            for _, countdown in batch:
                self._queue.task_done()
                if countdown is not None:
                    countdown.count()

    async def _settle_fresh(self, batch: list[Observation]) -> None:
        fresh = self._recent.fresh(batch)
        self._metrics.repeats.inc(len(batch) - len(fresh))
        for observation in fresh:
            self._note_refusal(observation)
        if fresh:
            await self._settle_until_done(fresh)

    def _note_refusal(self, observation: Observation) -> None:
        if observation.provider_status in OUR_REFUSALS:
            status = str(observation.provider_status)
            self._metrics.provider_refusals.labels(status).inc()
            _log.error("provider_refused_us", status=status, hold_id=observation.hold_id.hex)

    async def _settle_until_done(self, batch: list[Observation]) -> None:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._settle(batch)
            except StoreUnavailable as error:
                self._metrics.retries.inc()
                _log.warning("settlement_waits", reason=str(error), retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MOST_S)
            else:
                return

    async def _settle(self, batch: list[Observation]) -> None:
        with self._metrics.batch_seconds.time():
            try:
                committed = await self._settlements.settle(batch)
            except (StoreUnavailable, BrokenInvariant):
                # The one is tried again; the other ends the process, and the holds stay as witness.
                raise
            except Exception:
                await self._settle_apart(batch)
                return
        self._recent.remember(batch)
        for changes in committed:
            self._metrics.count(changes)

    async def _settle_apart(self, batch: list[Observation]) -> None:
        """One bad entry must not hold up the others: halve the batch until it stands alone.

        Its hold stays open, which is how it is found again.
        """
        if len(batch) == 1:
            self._metrics.failed.inc()
            _log.exception("settlement_failed", hold_id=batch[0].hold_id.hex)
            return
        middle = len(batch) // 2
        await self._settle(batch[:middle])
        await self._settle(batch[middle:])
