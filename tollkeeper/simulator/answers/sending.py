"""Sends the bytes of a reply, slowly, cut in pieces or cut off as a behaviour says."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import cycle

from aiohttp import web

from tollkeeper.simulator.answers.misbehaviour import Behaviour

FORCED_CHUNK_PAUSE_MS = 1
"""Between pieces of a stream cut on purpose, so that the receiver sees them apart."""
CUT_PAUSE_SECONDS = 0.02
"""The time that sent bytes get to arrive before the connection is aborted."""


def pieces(events: Iterable[bytes], sizes: tuple[int, ...]) -> Iterator[bytes]:
    """Cut the stream at the given sizes, over and over, or at its events without sizes."""
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
    """Send the parts; return False if the client had left, True otherwise.

    A reply that is cut off on purpose counts as sent.
    """
    pause_ms = FORCED_CHUNK_PAUSE_MS if behaviour.chunk_sizes else 0
    if behaviour.chunk_delay_ms is not None:
        pause_ms = behaviour.chunk_delay_ms
    pause_seconds = pause_ms / 1000
    # Between the first part, which says that the answer is being made, and the others.
    body_delay_seconds = behaviour.body_delay_ms / 1000
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
            if body_delay_seconds:
                await asyncio.sleep(body_delay_seconds)
                body_delay_seconds = 0.0
            elif pause_seconds:
                await asyncio.sleep(pause_seconds)
        await response.write_eof()
    except ConnectionError:
        return False
    return not has_left(request)


def has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
