"""Event streams cut exactly where a test says, through a real Envoy, and what is made of them.

The next piece is sent only when the client has the one before: no two pieces ever meet in one
read of Envoy's.
"""

import asyncio
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from aiohttp import web

from authz.protos import ext_authz_pb2 as pb
from meter.holds.hold import Hold, HoldState
from meter.ingest.ending import EntryFacts, observation_from_facts
from meter.ingest.log_file.lines import read_line
from meter.ingest.stream.wire import facts_from_message
from meter.pricing.prices import Price
from meter.protos import access_log_pb2 as log_pb
from meter.settlement.outcome import Outcome, decide_outcome
from meter.usage.usage import Observation, Source
from tests.e2e.envoy.envoy_harness import Gateway, allow
from tests.patience import WAIT_S

CLIENTS = 32
GENERATION = "gen-split"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
PRICE = Price(1, "openai/gpt-4o", NOON, prompt_picos=2_500_000, completion_picos=10_000_000)

Pieces = tuple[bytes, ...]


def cut(stream: bytes, *offsets: int) -> Pieces:
    """The stream in pieces that end at these offsets."""
    ends = sorted({0, *offsets, len(stream)})
    return tuple(stream[start:end] for start, end in itertools.pairwise(ends))


@dataclass(slots=True)
class _Progress:
    """The part of an answer that its client has."""

    received: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, length: int) -> None:
        self.received += length
        self.changed.set()

    async def reach(self, length: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.received < length:
                self.changed.clear()
                await self.changed.wait()


@dataclass(slots=True)
class Splitter:
    """Sends streams through a gateway, each cut in its own way."""

    gateway: Gateway
    _numbers: int = 0
    _log_offset: int = 0
    _pieces: dict[int, Pieces] = field(default_factory=dict)
    _progress: dict[int, _Progress] = field(default_factory=dict)

    async def outcomes(self, streams: Iterable[Pieces]) -> list[Outcome]:
        """Return the settlement of each stream by both logs; fails where the two differ.

        Fails also where a client did not get the bytes that were sent.
        """
        self.gateway.reset()
        self.gateway.entries.seen.clear()
        self._log_offset = self._log.stat().st_size
        self.gateway.decisions.answer = _decide
        self.gateway.provider.answer = self._answer
        first = self._numbers
        for pieces in streams:
            self._pieces[self._numbers] = pieces
            self._numbers += 1
        numbers = range(first, self._numbers)
        waiting = asyncio.Semaphore(CLIENTS)
        await asyncio.gather(*(self._ask(number, waiting) for number in numbers))
        return await self._settled(numbers)

    async def _ask(self, number: int, waiting: asyncio.Semaphore) -> None:
        async with waiting:
            progress = self._progress[number] = _Progress()
            headers, body = {"content-type": "application/json"}, b'{"case":%d}' % number
            url, got = f"{self.gateway.url}/v1/chat/completions", b""
            async with self.gateway.client.post(url, data=body, headers=headers) as reply:
                assert reply.status == 200
                async for part in reply.content.iter_any():
                    got += part
                    progress.add(len(part))
            assert got == b"".join(self._pieces[number])

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        number = json.loads(await request.read())["case"]
        headers = {"content-type": "text/event-stream", "x-generation-id": GENERATION}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        sent = 0
        for piece in self._pieces[number]:
            await response.write(piece)
            sent += len(piece)
            await self._progress[number].reach(sent)
        return response

    async def _settled(self, numbers: range) -> list[Outcome]:
        streamed, filed = await self._observations(numbers)
        for number in numbers:
            assert replace(filed[number], source=Source.STREAM) == streamed[number]
        return [decide_outcome(streamed[number], _hold(number), PRICE) for number in numbers]

    async def _observations(
        self, numbers: range
    ) -> tuple[dict[int, Observation], dict[int, Observation]]:
        """Return what both logs say, once both have everything."""
        async with asyncio.timeout(WAIT_S):
            while True:
                streamed, filed = self._in_stream(), self._in_file()
                if all(number in streamed and number in filed for number in numbers):
                    return streamed, filed
                await asyncio.sleep(0.1)

    @property
    def _log(self) -> Path:
        return self.gateway.folder / "access.jsonl"

    def _in_stream(self) -> dict[int, Observation]:
        message = log_pb.StreamAccessLogsMessage()
        message.http_logs.log_entry.extend(self.gateway.entries.seen)
        found = facts_from_message(message.SerializeToString())
        return _by_case(found, Source.STREAM)

    def _in_file(self) -> dict[int, Observation]:
        text = self._log.read_bytes()[self._log_offset :]
        found = [read_line(line).meaning for line in text.split(b"\n")[:-1]]
        return _by_case([one for one in found if isinstance(one, EntryFacts)], Source.FILE)


def _by_case(entries: list[EntryFacts], source: Source) -> dict[int, Observation]:
    observations = [observation_from_facts(facts, source) for facts in entries]
    return {one.hold_id.int: one for one in observations}


async def _decide(check: pb.CheckRequest) -> pb.CheckResponse:
    number = json.loads(check.attributes.request.http.raw_body)["case"]
    return allow(UUID(int=number).hex)


def _hold(number: int) -> Hold:
    return Hold(
        id=UUID(int=number),
        placed_at=NOON,
        account_id="acme",
        credential_id="abcdefghij234567",
        model_id=PRICE.model_id,
        endpoint="chat_completions",
        price_id=PRICE.id,
        markup_bps=333,
        amount_picos=10**12,
        flat_cost_picos=0,
        max_tokens=1_000,
        state=HoldState.OPEN,
    )
