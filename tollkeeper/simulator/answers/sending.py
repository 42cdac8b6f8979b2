"""Puts the bytes of a reply on the wire, well or badly, as told."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import cycle

from aiohttp import web

from tollkeeper.simulator.answers.misbehaviour import Behaviour

FORCED_CHUNK_PAUSE_MS = 1
"""Between pieces of a stream cut on purpose, so that the receiver sees them apart."""
CUT_PAUSE_SECONDS = 0.02
"""What was sent gets this long to arrive before the connection is aborted."""


def pieces(events: Iterable[bytes], sizes: tuple[int, ...]) -> Iterator[bytes]:
    """The stream cut at the given sizes, over and over; at its events when none are given."""
    if not sizes:
        yield from events
        return
    stream, start = b"".join(events), 0
    for size in cycle(sizes):
        if start >= len(stream):
            return
        yield stream[start : start + size]
        start += size


async def send(
    request: web.Request,
    response: web.StreamResponse,
    parts: Iterable[bytes],
    behaviour: Behaviour,
) -> bool:
    """Send the parts; True when all of them went out as far as can be known.

    False means that the client had left. A cut on purpose counts as sent.
    """
    pause_seconds = _pause_ms(behaviour) / 1000
    left_bytes = behaviour.cut_after_bytes
    try:
        await response.prepare(request)
        for part in parts:
            if left_bytes is not None:
                part, left_bytes = part[:left_bytes], left_bytes - len(part)
            if part:
                await response.write(part)
            if left_bytes is not None and left_bytes <= 0:
                await asyncio.sleep(CUT_PAUSE_SECONDS)
                if request.transport is not None:
                    request.transport.abort()
                return True
            if pause_seconds:
                await asyncio.sleep(pause_seconds)
        await response.write_eof()
    except ConnectionError:
        return False
    return not has_left(request)


def has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _pause_ms(behaviour: Behaviour) -> int:
    if behaviour.chunk_delay_ms is not None:
        return behaviour.chunk_delay_ms
    return FORCED_CHUNK_PAUSE_MS if behaviour.chunk_sizes else 0
