"""The windows of limits in Redis, for authz and meter.

The scripts in `meter/limits/scripts/` define how a window is kept. They use Redis' own clock, so
that the clocks of several machines need not agree.
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
from meter.limits.limits import LimitKind, LimitWindow, TokenUse, key_of

KEY_PREFIX: Final = "tollkeeper:limit"
# The time since when this Redis counts. When Redis loses its data, it loses this key too.
BORN_KEY: Final = f"{KEY_PREFIX}:born"
_MICROSECOND: Final = timedelta(microseconds=1)
# The exceptions of a call when Redis does not answer, or answers with an error.
REDIS_OUTAGES: Final = (RedisError, OSError, TimeoutError)


def connect(url: str, timeout_s: float) -> "Redis":
    """Return a client that connects within `timeout_s` or fails; it never retries by itself.

    Callers put a timeout around their calls: a timeout of the client costs a task for each call.
    """
    return Redis.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
    )


class LimitScript:
    """One Lua script on windows, `take` or `add`; it is loaded into Redis when Redis lacks it.

    The script has a connection of its own: every check waits for the call, and the work of a
    connection pool would take a third of its time.
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
        """Call the script once and return its reply. `now_us` replaces the clock of Redis in tests.

        Raises one of REDIS_OUTAGES when Redis is away.
        """
        packed = struct.pack(f"<{len(numbers)}d", *numbers)
        if self._sha is not None:
            try:
                return await self._call(self._sha, keys, now_us, packed)
            except NoScriptError:
                # Redis was restarted or emptied, so it needs the text of the script again.
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
                command = _command(b"EVALSHA", sha, str(len(keys)), *keys, now_us, packed)
                await connection.send_packed_command(command, check_health=False)
                answer: list[int] = await connection.read_response()
            except ResponseError:
                raise
            except BaseException:
                # The reply may still arrive; it must not be read as the reply to the next call.
                await connection.disconnect(nowait=True)
                raise
        return answer


def _command(*arguments: str | bytes) -> bytes:
    """Return a command as Redis reads it; the client packs any type, for three times the time."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument.encode() if isinstance(argument, str) else argument
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def redis_key(key: str) -> str:
    """Return the key in Redis of the window with this name."""
    return f"{KEY_PREFIX}:{key}"


class RedisLimitWindows:
    """Corrects the windows of tokens once the usage of a request is known."""

    def __init__(self, redis: "Redis", clock: Clock, timeout_s: float) -> None:
        self._redis = redis
        self._clock = clock
        self._timeout_s = timeout_s
        self._script = LimitScript(redis, "add")

    async def add_tokens(self, uses: Sequence[TokenUse]) -> None:
        """Apply all corrections in one call.

        Raises StoreUnavailable when Redis does not answer in time; the corrections may have been
        applied nevertheless.
        """
        index: dict[str, int] = {}
        numbers: list[float] = []
        now = self._clock.now()
        for use in uses:
            age_us = 0 if use.counted_at is None else max(0, (now - use.counted_at) // _MICROSECOND)
            for bucket in use.buckets:
                key = redis_key(key_of(LimitKind.TOKENS, bucket))
                at = index.setdefault(key, len(index) + 1)
                numbers += (at, use.tokens, age_us, LimitWindow.MINUTE)
        if not index:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._script.run(list(index), numbers)
        except REDIS_OUTAGES as error:
            raise StoreUnavailable(f"Redis does not answer ({type(error).__name__})") from error

    async def close(self) -> None:
        """Leave Redis."""
        await self._script.close()
        await self._redis.aclose()
