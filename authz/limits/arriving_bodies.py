"""Room in Envoy's memory for large bodies that are still arriving: a total, and a share of it.

A body that does not fit the first check takes room before Envoy reads the rest of it, and gives the
room back when the second check ends. A client that never finishes keeps its room until Envoy
ends the request.

The second check also tells how much work the body was. Whoever gives room learns from it which
accounts caused too much, before Envoy reads more of their bodies.
"""

import asyncio
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import structlog

from authz.endpoints.body_work import BURST_S, SHARE
from authz.metrics import Metrics
from meter.clock import Clock
from meter.limits.redis_windows import REDIS_OUTAGES

if TYPE_CHECKING:
    from redis.asyncio import Redis

# `request_timeout` in envoy/envoy.yaml: no request is still arriving after it.
ARRIVAL_S: Final = 120
# After a failure of Redis, this process counts alone for so long before it asks Redis again.
AWAY_S: Final = 1.0
MAX_GIVING_BACK: Final = 1_024
_KEY: Final = "tollkeeper:bodies:"
_TOO_MUCH_WORK: Final = 3

_TAKE: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1])
local over = tonumber(redis.call('GET', KEYS[1] .. ':paid') or 0) - now - time[2] / 1e6
if over > tonumber(ARGV[6]) then return {3, tostring(over - ARGV[6])} end
local size = tonumber(ARGV[2])
for i = 1, 2 do
  local bodies, sum = KEYS[i], KEYS[i] .. ':bytes'
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', bodies, '-inf', now)) do
    redis.call('ZREM', bodies, one)
    redis.call('DECRBY', sum, one:match('%d+$'))
  end
  -- A sum of nothing is 0, also where Redis has lost one of the two keys.
  if redis.call('ZCARD', bodies) == 0 then redis.call('SET', sum, 0) end
  if tonumber(redis.call('GET', sum) or 0) + size > tonumber(ARGV[2 + i]) then return {i, '0'} end
end
local one, lifetime = ARGV[1] .. ' ' .. ARGV[2], tonumber(ARGV[5])
for i = 1, 2 do
  if redis.call('ZADD', KEYS[i], now + lifetime, one) == 1 then
    redis.call('INCRBY', KEYS[i] .. ':bytes', size)
  end
  redis.call('EXPIRE', KEYS[i], 2 * lifetime)
  redis.call('EXPIRE', KEYS[i] .. ':bytes', 2 * lifetime)
end
return {0, '0'}
"""
_GIVE_BACK: Final = """
for i = 1, 2 do
  if redis.call('ZREM', KEYS[i], ARGV[1] .. ' ' .. ARGV[2]) == 1 then
    redis.call('DECRBY', KEYS[i] .. ':bytes', ARGV[2])
  end
end
local owed = tonumber(ARGV[3])
if owed > 0 then
  local time, key = redis.call('TIME'), KEYS[1] .. ':paid'
  local now = time[1] + time[2] / 1e6
  local paid = math.max(tonumber(redis.call('GET', key) or 0), now) + owed
  redis.call('SET', key, string.format('%.6f', paid), 'PX', math.ceil((paid - now) * 1000) + 1)
end
return 0
"""

_log = structlog.get_logger(__name__)


class Room(StrEnum):
    """The answer to a body that wants room."""

    GIVEN = "given"
    NONE_FOR_ACCOUNT = "none_for_account"
    NONE_AT_ALL = "none_at_all"


@dataclass(frozen=True, slots=True)
class TooMuchWork:
    """The answer to a body of an account whose earlier bodies took too much time."""

    retry_after_s: float


class LocalArrivingBodies:
    """Counts the bodies of this process, on the monotonic clock."""

    def __init__(self, clock: Clock, total_bytes: int, account_bytes: int) -> None:
        self._clock = clock
        self._total_bytes = total_bytes
        self._account_bytes = account_bytes
        self._bodies: OrderedDict[str, tuple[float, str, int]] = OrderedDict()
        self._of_all = 0
        self._of_accounts: defaultdict[str, int] = defaultdict(int)

    def take(self, account_id: str, body_id: str, size_bytes: int) -> Room:
        """Give a body room, until it is given back or its time is over."""
        now_s = self._clock.monotonic_s()
        while self._bodies and (oldest := next(iter(self._bodies.items())))[1][0] <= now_s:
            self.give_back(oldest[0])
        if self._of_accounts.get(account_id, 0) + size_bytes > self._account_bytes:
            return Room.NONE_FOR_ACCOUNT
        if self._of_all + size_bytes > self._total_bytes:
            return Room.NONE_AT_ALL
        self.give_back(body_id)
        self._bodies[body_id] = (now_s + ARRIVAL_S, account_id, size_bytes)
        self._of_all += size_bytes
        self._of_accounts[account_id] += size_bytes
        return Room.GIVEN

    def give_back(self, body_id: str) -> None:
        """Give the room of a body back; nothing for a body that has none."""
        if (found := self._bodies.pop(body_id, None)) is None:
            return
        _, account_id, size_bytes = found
        self._of_all -= size_bytes
        self._of_accounts[account_id] -= size_bytes
        if not self._of_accounts[account_id]:
            del self._of_accounts[account_id]


class ArrivingBodies:
    """Counts the bodies of all instances in Redis; while Redis is away, each instance its own."""

    def __init__(
        self,
        redis: "Redis",
        clock: Clock,
        metrics: Metrics,
        timeout_s: float,
        total_bytes: int,
        account_bytes: int,
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._limits = (account_bytes, total_bytes)
        self._local = LocalArrivingBodies(clock, total_bytes, account_bytes)
        self._take = redis.register_script(_TAKE)
        self._give_back = redis.register_script(_GIVE_BACK)
        self._away_until_s = 0.0
        self._giving_back: set[asyncio.Task[None]] = set()

    async def take(self, account_id: str, body_id: str, size_bytes: int) -> Room | TooMuchWork:
        """Give a body room, until it is given back or its time is over."""
        room = Room.GIVEN
        if self._clock.monotonic_s() >= self._away_until_s:
            try:
                async with asyncio.timeout(self._timeout_s):
                    full, over_s = await self._take(
                        [f"{_KEY}account:{account_id}", f"{_KEY}all"],
                        [body_id, size_bytes, *self._limits, ARRIVAL_S, BURST_S / SHARE],
                    )
                if full == _TOO_MUCH_WORK:
                    self._metrics.count_arriving_body("too_much_work")
                    return TooMuchWork(float(over_s))
                room = (Room.GIVEN, Room.NONE_FOR_ACCOUNT, Room.NONE_AT_ALL)[full]
            except REDIS_OUTAGES as error:
                self._note_away(error)
                room = self._local.take(account_id, body_id, size_bytes)
        else:
            room = self._local.take(account_id, body_id, size_bytes)
        self._metrics.count_arriving_body(room.value)
        return room

    def give_back(
        self, account_id: str, body_id: str, size_bytes: int, spent_s: float = 0.0
    ) -> None:
        """Give the room of a body back in the background, and tell its work; never raises.

        A body whose room cannot be given back keeps it until its time is over.
        """
        self._local.give_back(body_id)
        is_away = self._clock.monotonic_s() < self._away_until_s
        if is_away or len(self._giving_back) >= MAX_GIVING_BACK:
            return
        task = asyncio.ensure_future(
            self._give_back_in_redis(account_id, body_id, size_bytes, spent_s)
        )
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)

    async def close(self) -> None:
        """Stop the background tasks and close the connections to Redis."""
        for task in self._giving_back:
            task.cancel()
        await self._redis.aclose()

    async def _give_back_in_redis(
        self, account_id: str, body_id: str, size_bytes: int, spent_s: float
    ) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                keys = [f"{_KEY}account:{account_id}", f"{_KEY}all"]
                await self._give_back(keys, [body_id, size_bytes, spent_s / SHARE])
        except REDIS_OUTAGES as error:
            self._note_away(error)

    def _note_away(self, error: Exception) -> None:
        self._away_until_s = self._clock.monotonic_s() + AWAY_S
        _log.warning("arriving_bodies_counted_alone", error=type(error).__name__)
