"""Reports every billed generation to a webhook, some time after its end.

Delivery is at least once: a failed report is tried again, and a simulator that starts reports
the last rows of its bill again, since the one before may have been killed. The receiver must
accept a report twice.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Protocol

import aiohttp
import structlog
from aiohttp import web
from pydantic import SecretStr

from tollkeeper.simulator.bill import Bill, BillRow
from tollkeeper.simulator.reports.spans import payload
from tollkeeper.simulator.settings import SimulatorSettings

WAITING_MAX = 200_000
"""Reports that may wait; beyond this number the oldest are dropped."""
BATCH_MAX_SPANS = 100
POST_TIMEOUT_SECONDS = 10
RETRY_FIRST_SECONDS = 0.5
RETRY_LONGEST_SECONDS = 10.0
GIVE_UP_AFTER_SECONDS = 600
RESENT_SECONDS = 900
"""The part of its bill that a starting simulator reports again."""

_log = structlog.get_logger()


class Broadcast(Protocol):
    """The receiver that is told when a generation has ended."""

    def note(self, generation_id: str) -> None:
        """Report the generation later, if the bill has it. Never raises."""
        ...


class NoBroadcast:
    """Reports nothing."""

    def note(self, generation_id: str) -> None:
        """Do nothing."""


class Broadcaster:
    """A queue of reports ordered by their due time, and the task that sends them."""

    def __init__(
        self,
        bill: Bill,
        url: str,
        token: SecretStr | None,
        delay_seconds: float,
        now: Callable[[], datetime],
    ) -> None:
        self._bill = bill
        self._url = url
        self._token = token
        self._delay_seconds = delay_seconds
        self._now = now
        self._waiting: deque[tuple[float, str]] = deque(maxlen=WAITING_MAX)
        self._has_more = asyncio.Event()

    def note(self, generation_id: str) -> None:
        due = asyncio.get_running_loop().time() + self._delay_seconds
        self._waiting.append((due, generation_id))
        self._has_more.set()

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """Send reports as long as the application lives (a ``cleanup_ctx``)."""
        sending = asyncio.create_task(self._run())
        yield
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    async def _run(self) -> None:
        since = self._now() - timedelta(seconds=RESENT_SECONDS)
        for row in self._bill.rows():
            if datetime.fromisoformat(row.at) >= since:
                self.note(row.generation_id)
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                while not self._waiting:
                    self._has_more.clear()
                    await self._has_more.wait()
                due, _ = self._waiting[0]
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                first_due = due
                rows = self._take_due()
                if rows:
                    await self._deliver(session, rows, first_due + GIVE_UP_AFTER_SECONDS)

    def _take_due(self) -> list[BillRow]:
        """Return the next rows that are due, without rows that are not billed or not reported."""
        now = asyncio.get_running_loop().time()
        rows: list[BillRow] = []
        while self._waiting and self._waiting[0][0] <= now and len(rows) < BATCH_MAX_SPANS:
            row = self._bill.find(self._waiting.popleft()[1])
            if row is not None and row.has_report:
                rows.append(row)
        return rows

    async def _deliver(
        self, session: aiohttp.ClientSession, rows: list[BillRow], give_up_at: float
    ) -> None:
        body, pause_seconds = payload(rows), RETRY_FIRST_SECONDS
        while not await self._post(session, body):
            if asyncio.get_running_loop().time() + pause_seconds > give_up_at:
                _log.error("broadcast_given_up", spans=len(rows))
                return
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RETRY_LONGEST_SECONDS)

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> bool:
        timeout = aiohttp.ClientTimeout(total=POST_TIMEOUT_SECONDS)
        try:
            async with session.post(
                self._url, data=body, timeout=timeout, allow_redirects=False
            ) as response:
                return 200 <= response.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def make_broadcast(
    app: web.Application, bill: Bill, settings: SimulatorSettings, now: Callable[[], datetime]
) -> Broadcast:
    """Return the broadcaster that the settings ask for; it lives as long as ``app``."""
    if settings.broadcast_url is None:
        return NoBroadcast()
    delay_seconds = settings.broadcast_delay_ms / 1000
    token = settings.broadcast_token
    broadcaster = Broadcaster(bill, settings.broadcast_url, token, delay_seconds, now)
    app.cleanup_ctx.append(broadcaster.running)
    return broadcaster
