"""Requests per minute of each account, counted in Redis for all instances together.

Checks that wait together share one round trip. Redis is a helper: while it is away each instance
counts its own share, which costs precision, never access control and never the service.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from importlib import resources
from typing import Final, Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from authz.decision import LimitStatus
from authz.local_limits import LocalLimiter
from authz.metrics import Metrics
from meter.accounts import Principal

BATCH_LIMIT: Final = 256
WAITING_LIMIT: Final = 4_096
PROBE_INTERVAL_S: Final = 1.0
KEY_PREFIX: Final = "tollkeeper:requests:"
_MICROS_PER_S: Final = 1_000_000
_OUTAGES: Final = (RedisError, OSError, TimeoutError)

_log = structlog.get_logger(__name__)


class RequestLimiter(Protocol):
    """Counts the requests of accounts against their limits."""

    async def take(self, principal: Principal) -> LimitStatus | None:
        """Count one request; None where the principal has no limit. Never raises an outage."""
        ...


@dataclass(slots=True, eq=False)
class _Waiting:
    account_id: str
    limit: int
    answer: asyncio.Future[LimitStatus] = field(default_factory=asyncio.Future)


def connect(url: str, timeout_s: float) -> "Redis":
    """A client that answers or fails within `timeout_s`: trying again is our own decision."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
    )


class RedisLimiter:
    """Implements RequestLimiter with one script; `local` takes over while Redis is away.

    Once Redis failed, no check waits for it again until a probe in the background succeeded.
    """

    def __init__(
        self, redis: "Redis", local: LocalLimiter, metrics: Metrics, timeout_s: float
    ) -> None:
        self._redis = redis
        self._local = local
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._script = (resources.files("authz") / "limits.lua").read_text(encoding="utf-8")
        self._script_sha: str | None = None
        self._waiting: deque[_Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None

    @property
    def is_degraded(self) -> bool:
        """Whether Redis is away and limits are counted here."""
        return self._probe is not None

    async def take(self, principal: Principal) -> LimitStatus | None:
        """Count one request against the account's limit."""
        limit = principal.requests_per_minute
        if limit is None:
            return None
        if self.is_degraded or len(self._waiting) >= WAITING_LIMIT:
            return self._local.take(principal.account_id, limit)
        waiting = _Waiting(principal.account_id, limit)
        self._waiting.append(waiting)
        if self._sender is None:
            self._sender = asyncio.ensure_future(self._send_batches())
        return await waiting.answer

    async def close(self) -> None:
        """Stop what runs in the background and leave Redis."""
        for task in (self._sender, self._probe):
            if task is not None:
                task.cancel()
        await self._redis.aclose()

    async def _send_batches(self) -> None:
        try:
            while self._waiting:
                count = min(BATCH_LIMIT, len(self._waiting))
                await self._send([self._waiting.popleft() for _ in range(count)])
        finally:
            self._sender = None

    async def _send(self, batch: list[_Waiting]) -> None:
        if self.is_degraded:
            self._answer_locally(batch)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await self._run_script(batch)
        except _OUTAGES as error:
            self._degrade(error)
            self._answer_locally(batch)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(_to_status(waiting.limit, answer))

    async def _run_script(self, batch: list[_Waiting]) -> list[list[int]]:
        keys = [KEY_PREFIX + waiting.account_id for waiting in batch]
        limits = [str(waiting.limit) for waiting in batch]
        if self._script_sha is not None:
            try:
                return await self._redis.evalsha(self._script_sha, len(keys), *keys, *limits)  # type: ignore[no-any-return]
            except NoScriptError:
                # Redis was restarted or emptied; it wants the script's text again.
                self._script_sha = None
        self._script_sha = await self._redis.script_load(self._script)
        return await self._redis.evalsha(self._script_sha, len(keys), *keys, *limits)  # type: ignore[no-any-return]

    def _answer_locally(self, batch: list[_Waiting]) -> None:
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_result(self._local.take(waiting.account_id, waiting.limit))

    def _degrade(self, error: Exception) -> None:
        _log.warning("limits_degraded", reason=type(error).__name__)
        self._metrics.limits_degraded.set(1)
        self._probe = asyncio.ensure_future(self._probe_until_back())

    async def _probe_until_back(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._redis.ping()
            except _OUTAGES:
                continue
            break
        _log.info("limits_restored")
        self._metrics.limits_degraded.set(0)
        self._probe = None


def _to_status(limit: int, answer: list[int]) -> LimitStatus:
    admitted, remaining, retry_after_us, reset_us = answer
    retry_after_s = None if admitted else retry_after_us / _MICROS_PER_S
    return LimitStatus(limit, remaining, reset_us / _MICROS_PER_S, retry_after_s)
