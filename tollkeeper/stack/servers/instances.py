"""The addresses of the instances of our own services."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tollkeeper.stack.home import Home, write_private
from tollkeeper.stack.servers.ports import LOOPBACK, free_port_like

MAX_INSTANCES = 16


@dataclass(frozen=True, slots=True)
class AuthzInstance:
    """One authz and its sockets."""

    name: str
    listen: Path
    health: Path


@dataclass(frozen=True, slots=True)
class MeterInstance:
    """One meter: its socket for the access-log stream, and its API as `host:port`."""

    name: str
    ingest: Path
    api: str


@dataclass(frozen=True, slots=True)
class Instances:
    """All of them. The first of a kind has the plain name, the others a number."""

    authz: tuple[AuthzInstance, ...]
    meters: tuple[MeterInstance, ...]

    @property
    def sockets(self) -> Iterator[Path]:
        """Every socket that one of them makes."""
        for authz in self.authz:
            yield from (authz.listen, authz.health)
        for meter in self.meters:
            yield meter.ingest


def instances(home: Home, authz: int, meters: int, api_port: int) -> Instances:
    """Name the instances, and find ports for the APIs beyond the first, kept between runs."""
    return Instances(
        tuple(
            AuthzInstance(name, home.run / f"{name}.sock", home.run / f"{name}-health.sock")
            for name in _names("authz", authz)
        ),
        tuple(
            MeterInstance(name, home.run / socket, f"{LOOPBACK}:{_port(home, name, api_port)}")
            for name, socket in zip(
                _names("meter", meters),
                [f"{one}.sock" for one in _names("ingest", meters)],
                strict=True,
            )
        ),
    )


def kept_port(path: Path) -> int:
    """The port of last time, so that bookmarks and scripts keep working."""
    try:
        kept = int(path.read_text())
    except (FileNotFoundError, ValueError):
        kept = None
    port = free_port_like(kept)
    write_private(path, f"{port}\n")
    return port


def _names(kind: str, count: int) -> list[str]:
    return [kind, *(f"{kind}-{number}" for number in range(2, count + 1))]


def _port(home: Home, name: str, first: int) -> int:
    return first if name == "meter" else kept_port(home.root / f"{name}.port")
