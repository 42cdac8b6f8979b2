"""The queue between the access logs and the books: bounded, and emptied in batches."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

import structlog

from meter.errors import BrokenInvariant, StoreUnavailable
from meter.ingest.ending import EntryFacts, observation_from_facts
from meter.ingest.metrics import IngestMetrics
from meter.ingest.recent_endings import RecentEndings
from meter.pricing.prices import DEFAULT_PROVIDER
from meter.process.halving import in_halves
from meter.process.periodic import until_done
from meter.settlement.changes import RefusedKey
from meter.settlement.port import SettlementStore
from meter.usage.usage import Observation, Source

QUEUE_LIMIT: Final = 100_000
BATCH_LIMIT: Final = 500
# How long a batch that is not full waits for more, where nobody waits for it: Envoy's workers send
# their logs one after another, and a transaction costs nearly the same for all of them.
LINGER_S: Final = 0.1
RETRY_FIRST_S: Final = 0.1
RETRY_MOST_S: Final = 5.0
DRAIN_TIMEOUT_S: Final = 20.0
# Statuses by which a provider refuses us, not the client: bad system key, no credit left, the
# key's own limit. Envoy answers the client 503 then; a 403 about a prompt passes as it is.
OUR_REFUSALS: Final = frozenset({401, 402, 403})
SERVED: Final = 200

_log = structlog.get_logger(__name__)


class _Countdown:
    """Signals that the last of several entries is settled."""

    def __init__(self, left: int) -> None:
        self._left = left
        self.done = asyncio.Event()

    def count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.done.set()


class _Queued(NamedTuple):
    facts: EntryFacts
    source: Source
    countdown: _Countdown | None


class Batcher:
    """Queues entries of the logs and settles them, however long Postgres is away.

    While one batch is being committed the next one forms, so batches grow with the load. A full
    queue makes `put` wait, which stops the reading of the access-log stream. An entry that was
    settled a moment ago and comes again unchanged, from the other log, is skipped.
    `on_answered` is told of each request that a provider served (200) or refused because of our
    key: the provider, its status, and when the request began.
    """

    def __init__(
        self,
        settlements: SettlementStore,
        metrics: IngestMetrics,
        recent: RecentEndings | None = None,
        on_answered: Callable[[str, int, datetime], None] | None = None,
    ) -> None:
        self._settlements = settlements
        self._metrics = metrics
        self._on_answered = on_answered
        self._recent = RecentEndings() if recent is None else recent
        self._queue: deque[_Queued] = deque()
        self._has_some = asyncio.Event()
        self._has_room = asyncio.Event()
        # Set while a batch is not to linger: it is full, or somebody waits for what is queued.
        self._is_urgent = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """The number of entries that are queued."""
        return len(self._queue)

    def start(self) -> asyncio.Task[None]:
        """Begin to settle in the background and return the task, which never ends by itself."""
        self._task = asyncio.create_task(self._run(), name="settlement")
        return self._task

    def has_settled(self, facts: EntryFacts) -> bool:
        """Return whether just these facts were settled a moment ago."""
        return self._recent.knows(facts)

    def count_repeats(self, number: int) -> None:
        """Count entries that were passed over because they were settled."""
        self._metrics.repeats.inc(number)

    async def put(self, entries: Sequence[EntryFacts], source: Source) -> None:
        """Queue entries; waits while the queue is full."""
        await self._enqueue([_Queued(facts, source, None) for facts in entries])

    async def settle_all(self, entries: Sequence[EntryFacts], source: Source) -> None:
        """Queue entries, and wait until each is in the books.

        An entry that can never be settled is counted, logged, and no longer waited for.
        """
        if not entries:
            return
        countdown = _Countdown(len(entries))
        await self._enqueue([_Queued(facts, source, countdown) for facts in entries])
        await countdown.done.wait()

    async def drain(self) -> int:
        """Settle the queue, then stop; return how many entries were left unsettled."""
        self._is_urgent.set()
        try:
            await asyncio.wait_for(self._is_idle.wait(), DRAIN_TIMEOUT_S)
        except TimeoutError:
            _log.error("settlement_drain_timed_out", waiting=self.waiting)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        return self.waiting

    async def _enqueue(self, entries: list[_Queued]) -> None:
        while entries:
            room = QUEUE_LIMIT - len(self._queue)
            if room <= 0:
                self._has_room.clear()
                await self._has_room.wait()
                continue
            added, entries = entries[:room], entries[room:]
            self._queue.extend(added)
            self._is_idle.clear()
            self._has_some.set()
            if added[0].countdown is not None or len(self._queue) >= BATCH_LIMIT:
                self._is_urgent.set()

    async def _run(self) -> None:
        while True:
            await self._has_some.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_urgent.wait(), LINGER_S)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_LIMIT))]
            self._has_room.set()
            if not self._queue:
                self._has_some.clear()
                self._is_urgent.clear()
            await self._settle_fresh(batch)
            for queued in batch:
                if queued.countdown is not None:
                    queued.countdown.count()
            if not self._queue:
                self._is_idle.set()

    async def _settle_fresh(self, batch: list[_Queued]) -> None:
        """Settle what repeats neither what is in the books nor another entry of the batch."""
        fresh: dict[EntryFacts, Observation] = {}
        for queued in batch:
            facts = queued.facts
            if facts in fresh or self._recent.knows(facts):
                continue
            observation = fresh[facts] = observation_from_facts(facts, queued.source)
            status = observation.provider_status
            # Off the default path the key may be the account's own, which the hold tells.
            if observation.provider is not None:
                continue
            if status in OUR_REFUSALS and status != observation.status_code:
                hold_id, began_at = observation.hold_id, observation.started_at
                self._note_refused(RefusedKey(hold_id, None, DEFAULT_PROVIDER, status, began_at))
            elif status == SERVED and self._on_answered is not None:
                self._on_answered(DEFAULT_PROVIDER, status, observation.started_at)
        self._metrics.repeats.inc(len(batch) - len(fresh))
        if fresh:
            await until_done(
                "settlement",
                partial(self._settle, list(fresh.items())),
                RETRY_FIRST_S,
                (StoreUnavailable,),
                most_retry_s=RETRY_MOST_S,
                on_outage=lambda _: self._metrics.retries.inc(),
            )

    async def _settle(self, batch: list[tuple[EntryFacts, Observation]]) -> None:
        """Settle a batch; an entry that can never be settled holds up no other.

        StoreUnavailable is tried again. BrokenInvariant ends the process: the holds stay, and show
        which requests are not settled.
        """
        passing = (StoreUnavailable, BrokenInvariant)
        await in_halves(batch, self._settle_together, self._give_up, passing=passing)

    async def _settle_together(self, batch: list[tuple[EntryFacts, Observation]]) -> None:
        with self._metrics.batch_seconds.time():
            committed = await self._settlements.settle([each for _, each in batch])
        for facts, _ in batch:
            self._recent.remember(facts)
        for changes in committed:
            self._metrics.count(changes)
            for refused in changes.keys_refused:
                if refused.owner is None:
                    self._note_refused(refused)

    def _note_refused(self, refused: RefusedKey) -> None:
        self._metrics.provider_refusals.labels(str(refused.status)).inc()
        _log.error(
            "provider_refused_us",
            provider=refused.provider,
            status=refused.status,
            hold_id=refused.hold_id.hex,
        )
        if self._on_answered is not None:
            self._on_answered(refused.provider, refused.status, refused.began_at)

    async def _give_up(self, entry: tuple[EntryFacts, Observation], _error: Exception) -> None:
        """Count and log an entry. Its hold stays open, and the sweep finds it there."""
        self._metrics.failed.inc()
        _log.exception("settlement_failed", hold_id=entry[1].hold_id.hex)
