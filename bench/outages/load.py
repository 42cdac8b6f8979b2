"""A steady load of small requests, JSON and SSE in turn, and how each ended for its client."""

import asyncio
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

PATH: Final = "/v1/chat/completions"
PATIENCE_S: Final = 15.0
SLOW_HEADER: Final = "x-slow"
# Every so many streams take about a second, so that some are running whenever something happens.
SLOW_EVERY: Final = 4
SLOW_BEHAVIOUR: Final[dict[str, Any]] = {
    "match": {"header": {SLOW_HEADER: "1"}},
    "chunk_delay_ms": 80,
}
OK: Final = "200"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it was sent, by `time.monotonic`, and how it ended.

    `outcome` is a status, or what happened instead: refused, cut, or no answer.
    """

    sent_at: float
    outcome: str


@dataclass(slots=True)
class Load:
    """Sends requests and notes how each ended; a request has `patience_s` for its answer."""

    gateway: str
    key: str = field(repr=False)
    session: aiohttp.ClientSession
    patience_s: float = PATIENCE_S
    answers: list[Answer] = field(default_factory=list)
    _asked: set[asyncio.Task[None]] = field(default_factory=set)

    async def press(self, per_second: float) -> None:
        """Send at a steady rate, whatever becomes of it, until cancelled; then wait for answers."""
        began, number = time.monotonic(), 0
        try:
            while True:
                task = asyncio.create_task(self._ask(number))
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)
                number += 1
                await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
        finally:
            await asyncio.gather(*self._asked)

    async def press_in_turn(self, clients: int, is_over: asyncio.Event) -> None:
        """Let so many clients ask, each again when it is answered, however fast the machine is."""
        numbers = itertools.count()

        async def ask() -> None:
            while not is_over.is_set():
                await self._ask(next(numbers))

        await asyncio.gather(*(ask() for _ in range(clients)))

    def between(self, start: float, end: float) -> Counter[str]:
        """Return how the requests ended that were sent in this time."""
        return Counter(one.outcome for one in self.answers if start <= one.sent_at < end)

    def first_served_after(self, moment: float) -> float | None:
        """Return when the first request that was served again was sent, in s after the moment."""
        served = [one.sent_at for one in self.answers if one.outcome == OK]
        return min((at - moment for at in served if at >= moment), default=None)

    async def _ask(self, number: int) -> None:
        sent_at = time.monotonic()
        self.answers.append(Answer(sent_at, await self._outcome(number)))

    async def _outcome(self, number: int) -> str:
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        if number % (2 * SLOW_EVERY) == 0:
            headers[SLOW_HEADER] = "1"
        body = {
            "model": "openai/gpt-4o-mini",
            "max_tokens": 20,
            "stream": number % 2 == 0,
            "messages": [{"role": "user", "content": f"question {number}"}],
        }
        patience = aiohttp.ClientTimeout(total=self.patience_s)
        try:
            async with self.session.post(
                self.gateway + PATH, data=json.dumps(body), headers=headers, timeout=patience
            ) as reply:
                await reply.read()
                return str(reply.status)
        except aiohttp.ClientConnectorError:
            return "refused"
        except (aiohttp.ClientError, ConnectionError):
            return "cut"
        except TimeoutError:
            return "no answer"
