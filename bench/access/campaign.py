"""Both measurements at once on a running stack: each is the other's load."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc.aio

from bench.access.administrator import Administrator
from bench.access.doors import Door, Gateway, Unmetered
from bench.access.limit_load import LimitLoad, overload
from bench.access.revocations import Windows, measure_windows

CONNECTIONS: Final = 64
LIMIT_PER_MINUTE: Final = 3_000
# More often than that many times the limit is asked: fewer would not tell whether it holds.
OVERLOADED: Final = 2
REVOKED_AT_ONCE: Final = 20
# 4 characters a token: the cheapest request there is.
BODY: Final[dict[str, Any]] = {
    "model": "openai/gpt-4o-mini",
    "max_tokens": 1,
    "messages": [{"role": "user", "content": "Hi"}],
}


@dataclass(frozen=True, slots=True)
class Target:
    """A running stack: its addresses, and the socket of each authz."""

    gateway: str
    api: str
    operator_token: str
    authz: Sequence[Path]


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a campaign."""

    windows: Windows
    load: LimitLoad

    def rows(self) -> dict[str, Any]:
        """Return the rows as they are written and printed."""
        doors = sorted({watch.door for watch in self.windows.watches})
        return {
            "revocation": {door: self.windows.row(door) for door in doors},
            "limit": {
                "per_minute": self.load.limit,
                "connections": CONNECTIONS,
                "most_in_60_s": self.load.most_in_a_window,
                "usable": round(self.load.usable, 4),
                "answers": {str(status): n for status, n in sorted(self.load.statuses.items())},
            },
        }


async def run_campaign(
    target: Target,
    revocations: int,
    seconds: float,
    seed: int,
    say: Callable[[str], None],
    limit: int = LIMIT_PER_MINUTE,
) -> Measured:
    """Revoke under load, and load under revocations.

    The load lasts for `seconds`, or until the limit was asked for OVERLOADED times over.
    """
    # Shorter than the 5 s after which the API closes a connection that nobody uses.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    async with aiohttp.ClientSession(connector=connector) as session:
        administrator = Administrator(session, target.api, target.operator_token)
        gateway = Gateway(session, target.gateway, BODY)
        channels = [grpc.aio.insecure_channel(f"unix:{path}") for path in target.authz]
        doors: dict[str, Door] = {"gateway": gateway}
        for number, channel in enumerate(channels, 1):
            doors[f"authz {number}"] = Unmetered(channel)
        await administrator.open_account("limited")
        await administrator.ask("PATCH", "/users/limited", {"requests_per_minute": limit})
        key = await administrator.key("limited")
        say(f"{CONNECTIONS} connections against {limit} requests a minute")
        windows, load = await asyncio.gather(
            measure_windows(administrator, doors, revocations, REVOKED_AT_ONCE, seed, say),
            overload(gateway, key.text, limit, CONNECTIONS, seconds, OVERLOADED * limit),
        )
        for channel in channels:
            await channel.close()
    return Measured(windows, load)
