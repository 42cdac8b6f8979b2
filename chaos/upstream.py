"""The upstream's side of the story: its bill, and every request that reached it."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp

from chaos.records import TAG_HEADER

# The provider that every stack has, by its id in our books.
DEFAULT_PROVIDER: Final = "openrouter"
PICOS_PER_USD: Final = Decimal(10) ** 12
LOOK_EVERY_S: Final = 0.5
# As many as the simulator remembers.
REMEMBERED_MOST: Final = 2_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """One inference request as the upstream received it."""

    tag: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class BillRow:
    """The charge of the upstream for one generation, and the request id that it came with.

    `key_sha256` is the digest of the provider key that pays.
    """

    generation_id: str
    cost_picos: int
    request_id: str | None = None
    key_sha256: str = ""


def read_bill(path: Path) -> list[BillRow]:
    """All whole rows. Raises ValueError for a cost that is no whole number of pico-dollars."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [_bill_row(json.loads(line)) for line in lines]


def _bill_row(row: dict[str, Any]) -> BillRow:
    picos = Decimal(row["cost"]) * PICOS_PER_USD
    if picos != int(picos):
        raise ValueError(f"{row['generation_id']}: {row['cost']} USD is a fraction of a pico")
    key_sha256 = row.get("key_sha256", "")
    return BillRow(row["generation_id"], int(picos), row.get("request_id"), key_sha256)


class Upstream:
    """Tells the simulator how to behave, and looks at what reaches it."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self._base = base
        self._session = session
        self._count = 0
        self.arrivals: list[Arrival] = []
        self.missed = 0

    async def behave(self, behaviours: list[dict[str, Any]]) -> None:
        """These from now on, and no others."""
        await self._ask("DELETE", "behaviours")
        for behaviour in behaviours:
            await self._ask("POST", "behaviours", behaviour)

    async def accept(self, key: str) -> None:
        """Accept one more key."""
        await self._ask("POST", "keys", {"key": key, "is_accepted": True})

    async def count(self) -> int:
        """Return the number of inference requests that arrived since the start."""
        return int((await self._ask("GET", "requests?limit=1"))["count"])

    async def watch(self) -> None:
        """Look again and again; runs until it is cancelled."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Take in what arrived since the last look."""
        limit = REMEMBERED_MOST if self._count == 0 else 400
        answer = await self._ask("GET", f"requests?limit={limit}")
        news = answer["count"] - self._count
        latest = answer["requests"][-news:] if news else []
        self.missed += news - len(latest)
        self._count = answer["count"]
        self.arrivals += [_arrival(one) for one in latest if one["method"] == "POST"]

    async def _ask(self, method: str, path: str, content: object = None) -> Any:
        url = f"{self._base}/control/{path}"
        async with self._session.request(method, url, json=content) as reply:
            if reply.status >= 400:
                raise RuntimeError(f"{method} {path}: {reply.status} {await reply.text()}")
            return await reply.json() if reply.status != 204 else None


def _arrival(request: dict[str, Any]) -> Arrival:
    headers = {name.lower(): value for name, value in request["headers"]}
    return Arrival(headers.get(TAG_HEADER), headers.get("x-request-id"))
