"""Envoy's access-log stream has nobody to go to: the file tells, and nothing waits for its return.

The same for minutes, with figures: `python -m bench.outages --only stream --minutes 5`.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import aiohttp

from bench.outages.away import stream_away
from bench.outages.load import Load
from bench.outages.measure import prepare
from chaos.stack import ChaosStack
from tests.patience import WAIT_S, until

CLIENTS = 4
SETTLED_BY_THE_FILE = 100
SETTLED_BY_THE_STREAM = 30


async def test_while_the_stream_is_away_the_file_settles(brisk_stack: ChaosStack) -> None:
    """Requests are under way all the time, also in the moments when the stream goes and returns."""
    async with aiohttp.ClientSession() as session:
        payer = await prepare(brisk_stack, session)
        load = Load(brisk_stack.endpoint("gateway"), payer.key, session, WAIT_S)
        books, is_over = payer.books, asyncio.Event()

        async def settled(since: datetime) -> Counter[str]:
            return await books.sources_between(since, datetime.now(UTC))

        async def by_the_file() -> bool:
            return (await settled(gone))["file"] >= SETTLED_BY_THE_FILE

        async def by_the_stream() -> bool:
            return (await settled(back))["stream"] >= SETTLED_BY_THE_STREAM

        pressing = asyncio.create_task(load.press_in_turn(CLIENTS, is_over))
        async with stream_away(brisk_stack):
            gone = datetime.now(UTC)
            await until(by_the_file, "the file settles")
            while_away = await settled(gone)
        back = datetime.now(UTC)
        await until(by_the_stream, "the stream settles again")
        is_over.set()
        await pressing
        assert await books.wait_settled(WAIT_S) is not None
    assert while_away["stream"] == 0
    assert {answer.outcome for answer in load.answers} == {"200"}
    balance = await books.balance()
    assert balance.is_right, balance
    assert balance.provisional == 0
