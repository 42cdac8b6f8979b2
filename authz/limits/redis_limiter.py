"""Limits counted in Redis for all instances together.

Checks that wait at the same time share one round trip. Limits do not depend on Redis: while it is
away, each instance counts its own share. That costs precision, never access control or service.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from authz.limits.answer import ADMITTED, BucketState, LimitAnswer, LimitUse, to_answer
from authz.limits.calendar_window import CalendarWindow
from authz.limits.local_limiter import LocalLimiter
from authz.limits.local_window import LocalWindow
from authz.limits.recent_refusals import RecentRefusals
from authz.metrics import Metrics
from meter.clock import Clock
from meter.limits.limits import WINDOW_S, Limit, LimitKind, LimitWindow
from meter.limits.redis_windows import BORN_KEY, REDIS_OUTAGES, LimitScript, redis_key

if TYPE_CHECKING:
    from redis.asyncio import Redis

BATCH_LIMIT: Final = 256
WAITING_LIMIT: Final = 4_096
MAX_UNREPORTED: Final = 20_000
PROBE_INTERVAL_S: Final = 1.0
EVICTION_LOOK_S: Final = 1.0
# Amounts that Redis does not know of have left every window by then.
GUARDED_S: Final = WINDOW_S + 1.0
_ANSWERS_PER_USE: Final = 3
_MICROS_PER_S: Final = 1_000_000
_NEVER_FITS: Final = LimitUse(Limit("nobody", LimitKind.REQUESTS, 0), 1)

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A check that waits; `reserved` is the answer of this instance, where it had to admit too."""

    uses: Sequence[LimitUse]
    reserved: LimitAnswer | None = None
    answer: asyncio.Future[LimitAnswer] = field(default_factory=asyncio.Future)

    def tell(self, answer: LimitAnswer) -> None:
        """Answer the check, unless it has been cancelled."""
        if not self.answer.done():
            self.answer.set_result(answer)


class RedisLimiter:
    """Implements Limiter with one script; `local` takes over while Redis is away.

    After a failure of Redis, no check waits for it until a probe in the background has succeeded.
    From then on, and whenever Redis has lost its counts, each check must be admitted by `local`
    too for a minute, because Redis does not know all of the last minute.
    """

    def __init__(
        self,
        redis: "Redis",
        local: LocalLimiter,
        metrics: Metrics,
        timeout_s: float,
        clock: Clock,
    ) -> None:
        self._redis = redis
        self._local = local
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._clock = clock
        self._script = LimitScript(redis, "take")
        self._refusals = RecentRefusals(clock)
        self._guarded_until_s = 0.0
        self._born: int | None = None
        self._add = LimitScript(redis, "add")
        # Amounts admitted here lately that Redis does not know of, by key.
        self._unreported: dict[str, LocalWindow | CalendarWindow] = {}
        self._waiting: deque[_Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._eviction_watch: asyncio.Task[None] | None = None

    @property
    def is_degraded(self) -> bool:
        """Return whether Redis is away and limits are counted here."""
        return self._probe is not None

    def find_refusal(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        """Return the refusal that Redis gave a moment ago and would give again."""
        return None if self.is_degraded else self._refusals.find(limits)

    async def take(self, uses: Sequence[LimitUse]) -> LimitAnswer:
        """Count one check in all of its buckets, or in none."""
        if not uses:
            return ADMITTED
        if self.is_degraded or len(self._waiting) >= WAITING_LIMIT:
            return self._take_locally(uses)
        waiting = _Waiting(uses)
        self._waiting.append(waiting)
        if self._sender is None:
            self._sender = asyncio.ensure_future(self._send_batches())
        return await waiting.answer

    async def peek(self, uses: Sequence[LimitUse]) -> LimitAnswer | None:
        """Return the answer that `take` would give, and count nothing; None while Redis is away.

        The script counts a check in all of its buckets or in none. So a use that never fits is
        added, and its state is left out of the answer.
        """
        if self.is_degraded:
            return None
        keys, numbers = self._to_questions([_Waiting([*uses, _NEVER_FITS])])
        try:
            async with asyncio.timeout(self._timeout_s):
                _, *found = await self._script.run(keys, numbers)
        except REDIS_OUTAGES:
            return None
        states = list(map(BucketState, *[iter(found)] * _ANSWERS_PER_USE))
        return to_answer(uses, states[: len(uses)])

    async def close(self) -> None:
        """Stop the background tasks and close the connections to Redis."""
        for task in (self._sender, self._probe, self._eviction_watch):
            if task is not None:
                task.cancel()
        for script in (self._script, self._add):
            await script.close()
        await self._redis.aclose()

    async def _send_batches(self) -> None:
        if self._eviction_watch is None:
            self._eviction_watch = asyncio.ensure_future(self._watch_evictions())
        try:
            while self._waiting:
                count = min(BATCH_LIMIT, len(self._waiting))
                await self._send([self._waiting.popleft() for _ in range(count)])
                # Checks that were admitted here because the queue was full are reported at once.
                if self._unreported and not self.is_degraded:
                    try:
                        await self._report()
                    except REDIS_OUTAGES as error:
                        self._degrade(error)
        finally:
            self._sender = None

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        if self.is_degraded:
            for waiting in batch:
                waiting.tell(self._take_locally(waiting.uses))
            return
        if self._is_guarded:
            batch = self._reserve(batch)
        if not batch:
            return
        keys, numbers = self._to_questions(batch)
        asked_at_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._timeout_s):
                born, *found = await self._script.run(keys, numbers)
        except REDIS_OUTAGES as error:
            self._degrade(error)
            # Redis may have counted the batch, or may do so yet: it is not reported.
            for waiting in batch:
                waiting.tell(waiting.reserved or self._local.take(waiting.uses))
            return
        if self._born is not None and self._born != born:
            _log.warning("limits_forgotten")
            self._guard()
        self._born = born
        # The same iterator three times: each state takes the next three numbers.
        states = map(BucketState, *[iter(found)] * _ANSWERS_PER_USE)
        for waiting in batch:
            own = [next(states) for _ in waiting.uses]
            answer = to_answer(waiting.uses, own)
            self._local.remember(waiting.uses, own, answer.refused_by is None, asked_at_s)
            if answer.refused_by is not None:
                self._refusals.note(waiting.uses, own, asked_at_s)
                if waiting.reserved is not None:
                    self._local.give_back(_of_minutes(waiting.uses))
                if not self._is_guarded:
                    self._local.learn(waiting.uses, own)
            elif not self._is_guarded:
                if waiting.reserved is None:
                    self._local.note_and_learn(waiting.uses, own)
                else:
                    self._local.learn(waiting.uses, own)
            elif waiting.reserved is None:
                # This answer shows that Redis lost its counts: it was given without them.
                self._reserve([waiting])
            waiting.tell(answer)

    def _reserve(self, batch: Sequence[_Waiting]) -> list[_Waiting]:
        """Have this instance admit the checks first; return those that it admits.

        Days and months need no guard: Redis takes their counts over from the question.
        """
        for waiting in batch:
            if waiting.reserved is None:
                waiting.reserved = self._local.take(_of_minutes(waiting.uses))
                if waiting.reserved.refused_by is not None:
                    waiting.tell(waiting.reserved)
        return [
            waiting
            for waiting in batch
            if waiting.reserved is not None and waiting.reserved.refused_by is None
        ]

    def _take_locally(self, uses: Sequence[LimitUse]) -> LimitAnswer:
        """Admit without Redis, and remember the amounts: Redis counts for other instances too."""
        answer = self._local.take(uses)
        if answer.refused_by is None:
            now_us = self._now_us()
            for use in uses:
                key = use.limit.key
                if key in self._unreported or len(self._unreported) < MAX_UNREPORTED:
                    window = self._unreported.get(key)
                    if window is None:
                        window = self._unreported[key] = self._local.new_window(use.limit)
                    window.forget(now_us)
                    window.add(now_us, use.amount)
        return answer

    def _to_questions(self, batch: Sequence[_Waiting]) -> tuple[list[str], list[float]]:
        """Return the keys, each once, and the numbers that the script takes."""
        index: dict[str, int] = {}
        numbers: list[float] = []
        for waiting in batch:
            numbers.append(len(waiting.uses))
            for use in waiting.uses:
                limit = use.limit
                key = redis_key(limit.key)
                at = index.setdefault(key, len(index) + 1)
                known = self._local.known(limit) if limit.window else 0
                numbers += (at, limit.most, use.amount, limit.is_shadow, limit.window, known)
        return [*index, BORN_KEY], numbers

    async def _report(self) -> None:
        """Report to Redis the amounts that were admitted without it, and still count."""
        while self._unreported:
            now_us = self._now_us()
            keys = list(self._unreported)[:BATCH_LIMIT]
            numbers: list[float] = []
            amounts: list[int] = []
            for at, key in enumerate(keys, 1):
                window = self._unreported.pop(key)
                amounts.append(window.forget(now_us))
                number = window.number if isinstance(window, CalendarWindow) else LimitWindow.MINUTE
                numbers += (at, amounts[-1], 0, number)
            async with asyncio.timeout(self._timeout_s):
                await self._add.run([redis_key(key) for key in keys], numbers)
            for key, amount in zip(keys, amounts, strict=True):
                self._local.report(key, amount)

    def _now_us(self) -> int:
        return int(self._clock.monotonic_s() * _MICROS_PER_S)

    @property
    def _is_guarded(self) -> bool:
        return self._clock.monotonic_s() < self._guarded_until_s

    def _guard(self) -> None:
        self._guarded_until_s = self._clock.monotonic_s() + GUARDED_S
        self._refusals.forget()

    def _degrade(self, error: Exception) -> None:
        _log.warning("limits_degraded", reason=type(error).__name__)
        self._metrics.limits_degraded.set(1)
        self._probe = asyncio.ensure_future(self._probe_until_back())

    async def _watch_evictions(self) -> None:
        """Guard the limits whenever Redis evicted keys for want of memory.

        Redis removes windows then, and never the key that tells since when it counts: that key has
        no expiry.
        """
        known: int | None = None
        while True:
            # The next check notices an outage by itself.
            with contextlib.suppress(*REDIS_OUTAGES):
                async with asyncio.timeout(self._timeout_s):
                    evicted = int((await self._redis.info("stats"))["evicted_keys"])
                if known is not None and evicted > known:
                    _log.warning("limits_evicted", keys=evicted - known)
                    self._metrics.limits_evicted.inc(evicted - known)
                    self._guard()
                known = evicted
            await asyncio.sleep(EVICTION_LOOK_S)

    async def _probe_until_back(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._redis.ping()
                await self._report()
            except REDIS_OUTAGES:
                continue
            break
        self._guard()
        _log.info("limits_restored")
        self._metrics.limits_degraded.set(0)
        self._probe = None


def _of_minutes(uses: Sequence[LimitUse]) -> list[LimitUse]:
    return [use for use in uses if use.limit.window is LimitWindow.MINUTE]
