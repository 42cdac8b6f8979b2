"""Small questions that tell whether a server is ready."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

PROBE_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A reply over HTTP."""

    status: int
    body: bytes

    def json(self) -> object:
        """The body as JSON; raises ValueError when it is none."""
        return json.loads(self.body)


async def http(
    method: str,
    url: str,
    *,
    socket: Path | None = None,
    headers: Mapping[str, str] | None = None,
    body: object = None,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> HttpAnswer:
    """Send one request and return its reply, over a Unix socket when `socket` is given.

    Raises OSError (TimeoutError among them) when there is no answer.
    """
    connector = aiohttp.UnixConnector(str(socket)) if socket else None
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
    try:
        async with (
            session,
            session.request(method, url, headers=headers, json=body) as reply,
        ):
            content = bytearray()
            async for chunk in reply.content.iter_any():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise ConnectionError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            return HttpAnswer(reply.status, bytes(content))
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error


async def answers_ok(url: str, socket: Path | None = None) -> bool:
    """Return whether a GET is answered with 200."""
    try:
        return (await http("GET", url, socket=socket)).status == 200
    except OSError:
        return False


def seconds_since(start: float) -> str:
    """Elapsed time for a progress line; `start` is of the monotonic clock."""
    return f"{time.monotonic() - start:.1f} s"
