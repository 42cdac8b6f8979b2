"""One component goes away under load and comes back: what happened meanwhile and afterwards."""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import aiohttp

from bench.outages.away import Away
from bench.outages.books import Balance, Books
from bench.outages.load import SLOW_BEHAVIOUR, Load
from chaos.customers import Administrator
from chaos.stack import ChaosStack

BEFORE_S: Final = 3.0
AFTER_S: Final = 6.0
SETTLED_MOST_S: Final = 60.0
# A hold of which nobody ever hears lives for a minute here, and is looked for another 20 s.
ENDED_MOST_S: Final = 120.0
ACCOUNT: Final = "outages"


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant, by both clocks."""

    at_s: float
    at: datetime

    @classmethod
    def now(cls) -> "Moment":
        """This one."""
        return cls(time.monotonic(), datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one outage. Seconds count from when the component was given back.

    `before`, `while_away` and `afterwards` say how requests ended that were sent then.
    `settled_away` and `settled_back` say by which ways requests were settled while it was away
    and afterwards.
    `served_after_s` is when the first request was sent that was served again. `settled_after_s`
    is when all was settled that was billed before, `ended_after_s` when nothing was held any
    more that had been before; None for longer than was waited.
    """

    name: str
    away_s: float
    before: Counter[str]
    while_away: Counter[str]
    afterwards: Counter[str]
    settled_away: Counter[str]
    settled_back: Counter[str]
    served_after_s: float | None
    settled_after_s: float | None
    ended_after_s: float | None
    balance: Balance


@dataclass(frozen=True, slots=True)
class Payer:
    """The asking account: a key that can pay, and the books of that account."""

    key: str = field(repr=False)
    books: Books


async def prepare(stack: ChaosStack, session: aiohttp.ClientSession) -> Payer:
    """An account that can pay, and an upstream some of whose streams are slow."""
    url = f"{stack.endpoint('simulator')}/control/behaviours"
    async with session.post(url, json=SLOW_BEHAVIOUR) as reply:
        reply.raise_for_status()
    customer = await Administrator(stack, session).open_account(ACCOUNT, "500")
    return Payer(customer.key, Books(stack, customer.id))


async def measure(
    stack: ChaosStack, payer: Payer, name: str, away: Away, away_s: float, per_second: float
) -> Measured:
    """Take it away for so long, then wait until the books are right again."""
    books = payer.books
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        load = Load(stack.endpoint("gateway"), payer.key, session)
        pressing = asyncio.create_task(load.press(per_second))
        await asyncio.sleep(BEFORE_S)
        async with away:
            gone = Moment.now()
            await asyncio.sleep(away_s)
        back = Moment.now()
        settled_after_s, ended_after_s = await asyncio.gather(
            books.wait_settled(SETTLED_MOST_S), books.wait_ended(back.at, ENDED_MOST_S)
        )
        await asyncio.sleep(max(0.0, back.at_s + AFTER_S - time.monotonic()))
        pressing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pressing
    end = Moment.now()
    await books.wait_settled(SETTLED_MOST_S)
    return Measured(
        name=name,
        away_s=back.at_s - gone.at_s,
        before=load.between(0.0, gone.at_s),
        while_away=load.between(gone.at_s, back.at_s),
        afterwards=load.between(back.at_s, end.at_s),
        settled_away=await books.sources_between(gone.at, back.at),
        settled_back=await books.sources_between(back.at, end.at),
        served_after_s=load.first_served_after(back.at_s),
        settled_after_s=settled_after_s,
        ended_after_s=ended_after_s,
        balance=await books.balance(),
    )
