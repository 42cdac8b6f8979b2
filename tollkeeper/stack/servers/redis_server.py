"""Redis on one machine: a helper without memory, on a Unix socket only."""

from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

MAX_MEMORY = "256mb"
PING_TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One server: its program, its socket and its (empty) working folder."""

    binary: Path
    socket: Path
    directory: Path

    @property
    def url(self) -> str:
        """Return the URL for clients."""
        return f"unix://{self.socket}"

    def prepare(self) -> None:
        """Make the working folder."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """The command line: no TCP, nothing written to disk, memory bounded."""
        settings = {
            "--port": "0",
            "--unixsocket": str(self.socket),
            "--unixsocketperm": "700",
            "--dir": str(self.directory),
            "--save": "",
            "--appendonly": "no",
            "--maxmemory": MAX_MEMORY,
            "--maxmemory-policy": "volatile-ttl",
            "--daemonize": "no",
        }
        return [str(self.binary), *(word for pair in settings.items() for word in pair)]


async def answers(server: RedisServer) -> bool:
    """Return whether the server answers PING."""
    client = Redis(unix_socket_path=str(server.socket), socket_timeout=PING_TIMEOUT_S)
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()
