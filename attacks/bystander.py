"""A user who asks at a steady rate and notes what comes back."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import aiohttp

from attacks.attacker import API_PATH, CHAT, small_body

PER_SECOND: Final = 8
PATIENCE_S: Final = 20.0
HTTP_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """The share of requests that were answered 200, and the latencies of these in ms."""

    asked: int
    success: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


async def ask_steadily(
    base: str, key: str, model: str | None, seconds: float, address: str | None = None
) -> Seen:
    """Ask PER_SECOND times a second, whatever the answers take; return what was seen.

    Without a model, the credit is asked for at the meter's API. `address` is where it asks from.
    """
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    method, path = ("GET", API_PATH) if model is None else ("POST", CHAT)
    body = None if model is None else small_body(model)
    taken_ms: list[float] = []

    async def ask(session: aiohttp.ClientSession) -> None:
        began_s = time.perf_counter()
        try:
            asked_for = session.request(method, f"{base}{path}", data=body, headers=headers)
            async with asked_for as reply:
                await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        if reply.status == HTTP_OK:
            taken_ms.append((time.perf_counter() - began_s) * 1_000)

    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    connector = aiohttp.TCPConnector(local_addr=None if address is None else (address, 0))
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        asked = []
        begin_s = time.perf_counter()
        for turn in range(round(seconds * PER_SECOND)):
            await asyncio.sleep(max(0.0, begin_s + turn / PER_SECOND - time.perf_counter()))
            asked.append(asyncio.create_task(ask(session)))
        await asyncio.gather(*asked)
    taken_ms.sort()

    def quantile(share: float) -> float:
        return round(taken_ms[min(len(taken_ms) - 1, int(share * len(taken_ms)))], 1)

    if not taken_ms:
        return Seen(len(asked), 0.0, 0.0, 0.0, 0.0)
    success = len(taken_ms) / len(asked)
    return Seen(len(asked), success, quantile(0.5), quantile(0.95), quantile(0.99))
