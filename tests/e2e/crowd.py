"""Many requests at once, from one event loop."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.e2e.admin import Customer
from tests.patience import WAIT_S


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a customer; `path` is below the gateway."""

    customer: Customer
    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one request."""

    request: Request
    status: int
    generation_id: str | None
    body: bytes


async def send_all(gateway: str, requests: Iterable[Request], at_once: int) -> list[Outcome]:
    """Send every request, never more than `at_once` together; outcomes in no special order."""
    waiting, outcomes = iter(requests), list[Outcome]()
    connector = aiohttp.TCPConnector(limit=at_once)
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def work() -> None:
            for request in waiting:
                outcomes.append(await _send(session, gateway, request))

        await asyncio.gather(*(work() for _ in range(at_once)))
    return outcomes


async def _send(session: aiohttp.ClientSession, gateway: str, request: Request) -> Outcome:
    headers = {"Authorization": f"Bearer {request.customer.key}"}
    async with session.post(gateway + request.path, json=request.body, headers=headers) as reply:
        generation_id = reply.headers.get("x-generation-id")
        return Outcome(request, reply.status, generation_id, await reply.read())
