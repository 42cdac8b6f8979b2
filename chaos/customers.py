"""Accounts of different wealth, and what an administrator does for them."""

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from chaos.stack import ChaosStack

# Some can pay for everything, some for a few requests, some for next to none.
BALANCES_USD: Final = ("500", "500", "500", "200", "0.004", "0.002", "0.0008", "0.0001")
# In basis points; the odd ones leave fractions of a pico-dollar.
MARKUPS_BPS: Final = (0, 333, 1_250, 9_999)
TOP_UP_USD: Final = "0.0007"
TOP_UP_EVERY_S: Final = 2.0
RETRY_S: Final = 0.3
PATIENCE_S: Final = 300.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class Customer:
    """An account with its first key."""

    id: str
    markup_bps: int
    is_poor: bool
    key: str = field(repr=False)


class Administrator:
    """Opens accounts and gives credit, each exactly once, however often it has to be asked.

    `given` is the credit of each account in US dollars, as the administrator remembers it.
    """

    def __init__(self, stack: ChaosStack, session: aiohttp.ClientSession) -> None:
        self._base = f"{stack.endpoint('api')}/api/v1/admin"
        self._authorization = f"Bearer {stack.operator_token}"
        self._session = session
        self.given: dict[str, Decimal] = {}

    async def open_accounts(self) -> list[Customer]:
        """All customers of a campaign."""
        return [
            await self.open_account(f"payer-{number}", balance, MARKUPS_BPS[number % 4])
            for number, balance in enumerate(BALANCES_USD)
        ]

    async def open_account(self, name: str, balance_usd: str, markup_bps: int = 0) -> Customer:
        """One account with credit and a key, without a limit on its rate."""
        terms = {"plan": "unlimited", "markup_bps": markup_bps}
        await self._post("users", {"id": name, "email": f"{name}@example.com", **terms})
        if Decimal(balance_usd):
            await self.give(name, balance_usd)
        else:
            self.given[name] = Decimal(0)
        issued = await self._post(f"users/{name}/api-keys", {"name": "first"})
        return Customer(name, markup_bps, Decimal(balance_usd) < 1, issued["key"])

    async def issue(self, account: str, name: str, scopes: Sequence[str]) -> str:
        """Return another key of an account, with these scopes."""
        issued = await self._post(
            f"users/{account}/api-keys", {"name": name, "scopes": list(scopes)}
        )
        return str(issued["key"])

    async def give(self, account: str, amount_usd: str) -> None:
        """Credit, asked for with one idempotency key until it is confirmed.

        Raises TimeoutError when the meter API does not come back.
        """
        self.given[account] = self.given.get(account, Decimal(0)) + Decimal(amount_usd)
        content = {"amount": amount_usd, "reason": "campaign"}
        await self._post(f"users/{account}/credits", content)

    async def reconcile(self, *, is_baseline: bool = False) -> None:
        """Reconcile the books once; the provider's total counts from a baseline on.

        Raises RuntimeError when the books drift.
        """
        url = f"{self._base}/reconciliations{'?new_baseline=true' if is_baseline else ''}"
        headers = {"Authorization": self._authorization}
        async with self._session.post(url, headers=headers) as reply:
            report = await reply.json()
        if not report.get("ok"):
            raise RuntimeError(f"the books drift: {report}")

    async def keep_poor_alive(self, customers: list[Customer], seed: int) -> None:
        """Top one of the poor up now and then; runs until it is cancelled."""
        draw = random.Random(f"top-ups {seed}")
        poor = [one.id for one in customers if one.is_poor]
        asked: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(TOP_UP_EVERY_S)
                asked.add(asyncio.create_task(self.give(draw.choice(poor), TOP_UP_USD)))
        finally:
            # What was begun is brought to its end: half-given credit would be nobody's.
            await asyncio.gather(*asked)

    async def _post(self, path: str, content: dict[str, Any]) -> Any:
        headers = {"Authorization": self._authorization, "Idempotency-Key": uuid.uuid4().hex}
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                async with self._session.post(
                    f"{self._base}/{path}", json=content, headers=headers, timeout=TIMEOUT
                ) as reply:
                    if reply.status in (HTTPStatus.OK, HTTPStatus.CREATED):
                        return await reply.json()
                    if reply.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                        raise RuntimeError(f"{path}: {reply.status} {await reply.text()}")
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(RETRY_S)
        raise TimeoutError(f"{path}: the meter API was away for {PATIENCE_S:.0f} s")
