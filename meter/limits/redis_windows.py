"""What the running minute brought, in Redis: windows of limits, for authz and meter alike.

The scripts in `meter/limits/scripts/` say how a window is kept. Only Redis' own clock counts.
"""

import asyncio
import struct
from collections.abc import Sequence
from datetime import timedelta
from importlib import resources
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.limits.limits import LimitKind, TokenUse, key_of

KEY_PREFIX: Final = "tollkeeper:limit"
# Since when this Redis counts: it is gone when everything else is.
BORN_KEY: Final = f"{KEY_PREFIX}:born"
_MICROSECOND: Final = timedelta(microseconds=1)
# What a call raises when Redis does not answer, or answers that it cannot.
REDIS_OUTAGES: Final = (RedisError, OSError, TimeoutError)


def connect(url: str, timeout_s: float) -> "Redis":
    """A client that connects within `timeout_s` or fails: trying again is our own decision.

    Callers put a timeout around their calls; one of the client's own would cost a task for each.
    """
    return Redis.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
    )


class LimitScript:
    """One script on windows, `take` or `add`, which Redis is given when it does not have it.

    It has a connection of its own: every check waits for it, and what a pool does for each call
    cost a third of the call.
    """

    def __init__(self, redis: "Redis", name: str) -> None:
        self._redis = redis
        self._connection = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        self._one_call = asyncio.Lock()
        folder = resources.files("meter.limits") / "scripts"
        files = ("limit_buckets", f"limit_{name}")
        self._text = "\n".join((folder / f"{file}.lua").read_text("utf-8") for file in files)
        self._sha: str | None = None

    async def run(
        self, keys: Sequence[str], numbers: Sequence[float], now_us: str = ""
    ) -> list[int]:
        """Call it once. `now_us` is for tests: production goes by the clock of Redis.

        Raises one of REDIS_OUTAGES when Redis is away.
        """
        packed = struct.pack(f"<{len(numbers)}d", *numbers)
        if self._sha is not None:
            try:
                return await self._call(self._sha, keys, now_us, packed)
            except NoScriptError:
                # Redis was restarted or emptied; it wants the script's text again.
                self._sha = None
        self._sha = await self._redis.script_load(self._text)
        return await self._call(self._sha, keys, now_us, packed)

    async def close(self) -> None:
        """Leave Redis."""
        await self._connection.disconnect(nowait=True)

    async def _call(self, sha: str, keys: Sequence[str], now_us: str, packed: bytes) -> list[int]:
        connection = self._connection
        async with self._one_call:
            try:
                if not connection.is_connected:
                    await connection.connect()
                command = connection.pack_command("EVALSHA", sha, len(keys), *keys, now_us, packed)
                await connection.send_packed_command(command, check_health=False)
                answer: list[int] = await connection.read_response()
            except ResponseError:
                raise
            except BaseException:
                # Its answer may come later, and must not be taken for that of another call.
                await connection.disconnect(nowait=True)
                raise
        return answer


def redis_key(key: str) -> str:
    """Where Redis keeps the window of that key."""
    return f"{KEY_PREFIX}:{key}"


class RedisLimitWindows:
    """Puts the windows of tokens right once it is known what requests used."""

    def __init__(self, redis: "Redis", clock: Clock, timeout_s: float) -> None:
        self._redis = redis
        self._clock = clock
        self._timeout_s = timeout_s
        self._script = LimitScript(redis, "add")

    async def add_tokens(self, uses: Sequence[TokenUse]) -> None:
        """Count them all in one call. Raises StoreUnavailable when Redis does not answer in time;
        whether they were counted is unknown then.
        """
        keys, numbers = self._to_arguments(uses)
        if not keys:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._script.run(keys, numbers)
        except REDIS_OUTAGES as error:
            raise StoreUnavailable(f"Redis does not answer ({type(error).__name__})") from error

    async def close(self) -> None:
        """Leave Redis."""
        await self._script.close()
        await self._redis.aclose()

    def _to_arguments(self, uses: Sequence[TokenUse]) -> tuple[list[str], list[float]]:
        index: dict[str, int] = {}
        numbers: list[float] = []
        now = self._clock.now()
        for use in uses:
            age_us = 0 if use.counted_at is None else max(0, (now - use.counted_at) // _MICROSECOND)
            for bucket in use.buckets:
                key = redis_key(key_of(LimitKind.TOKENS, bucket))
                numbers += (index.setdefault(key, len(index) + 1), use.tokens, age_us)
        return list(index), numbers
