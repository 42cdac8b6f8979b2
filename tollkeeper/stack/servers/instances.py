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
    """All instances. The first of a kind has the plain name, the others a number.

    `bodies` is the authz that reads whole large bodies, and nothing else.
    """

    authz: tuple[AuthzInstance, ...]
    bodies: AuthzInstance
    meters: tuple[MeterInstance, ...]

    @property
    def sockets(self) -> Iterator[Path]:
        """Every socket that one of them makes."""
        for authz in (*self.authz, self.bodies):
            yield from (authz.listen, authz.health)
        for meter in self.meters:
            yield meter.ingest


def instances(home: Home, authz: int, meters: int, api_port: int) -> Instances:
    """Name the instances, and find ports for the APIs beyond the first, kept between runs."""
    apis = [f"{LOOPBACK}:{api_port}"]
    for name in _names("meter", meters)[1:]:
        apis.append(f"{LOOPBACK}:{kept_port(home.root / f'{name}.port')}")
    return Instances(
        tuple(
            AuthzInstance(name, home.run / f"{name}.sock", home.run / f"{name}-health.sock")
            for name in _names("authz", authz)
        ),
        AuthzInstance("authz-bodies", home.run / "bodies.sock", home.run / "bodies-health.sock"),
        tuple(
            MeterInstance(name, home.run / f"{ingest}.sock", api)
            for name, ingest, api in zip(
                _names("meter", meters), _names("ingest", meters), apis, strict=True
            )
        ),
    )


def kept_port(path: Path) -> int:
    """Return the port of the last run if it is still free, so that bookmarks keep working."""
    try:
        kept = int(path.read_text())
    except (FileNotFoundError, ValueError):
        kept = None
    port = free_port_like(kept)
    write_private(path, f"{port}\n")
    return port


def _names(kind: str, count: int) -> list[str]:
    return [kind, *(f"{kind}-{number}" for number in range(2, count + 1))]
