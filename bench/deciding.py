"""CPU of one decision: `python -m bench.deciding`, alone or beside another clone.

The service of checks and its HTTP/2 transport run in this process as they do in authz. Another
process asks over a socket, a few checks at a time. Only Postgres and Redis are left out: holds are
granted in memory, a batch each turn of the event loop. So the figure is what authz spends on a
check, apart from its client of Postgres.
"""

import argparse
import asyncio
import base64
import gc
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, cast
from uuid import UUID, uuid4

import uvloop
from prometheus_client import CollectorRegistry

from authz.callers.authenticate import Authenticator
from authz.callers.last_uses import LastUses
from authz.callers.principal_cache import PrincipalCache
from authz.catalogue import CatalogueSnapshot
from authz.decide import Decider, Terms
from authz.limits.answer import ADMITTED, LimitAnswer, LimitUse
from authz.limits.counting import Limits
from authz.limits.recent_refusals import RecentRefusals
from authz.metrics import Metrics
from authz.protos.ext_authz_pb2 import (
    Address,
    AttributeContext,
    CheckRequest,
    HeaderMap,
    HeaderValue,
    SocketAddress,
)
from authz.service import CheckService
from authz.trace import Phase, Trace
from authz.transports import wire
from authz.transports.http2 import Http2Transport, frames
from authz.transports.http2.connection import Connection
from authz.transports.http2.intake import Intake
from authz.transports.http2.limits import ConnectionLimits
from authz.transports.http2.status import RESPONSE_TRAILERS
from bench.asking import call_frames
from bench.calibration import unit_us
from bench.load import BODY
from bench.static import MODEL
from meter.clock import Clock, SystemClock
from meter.holds.hold import HoldAnswer, HoldPlaced, HoldRequest
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.keys.key_text import Pepper, mint
from meter.identity.principal import Presented, Principal
from meter.limits.limits import Limit
from meter.limits.rule_store import LimitRuleStore
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.prices import DEFAULT_PROVIDER, Model, Offer, Price
from meter.process.startup_freeze import spare_long_lived_objects
from meter.process.telemetry import configure_logs
from meter.providers.key_store import PostgresProviderKeys, StoredKey
from meter.providers.provider import DialectName
from meter.routing.table import RoutingTable
from meter.routing.table_store import Routing, RoutingStore
from meter.sealing import SecretText

# As many checks as share a batch of holds at 16 connections.
AT_ONCE: Final = 4
ROUNDS: Final = 7
TURNS_A_ROUND: Final = 300
# Of some milliseconds each, so that many of them are not interrupted.
SHORT_ROUNDS: Final = 150
SHORT_UNITS: Final = 100
_THIS_CLONE: Final = Path(__file__).resolve().parent.parent


class GrantingHolds:
    """Implements `meter.holds.hold.Holds` in memory: a batch each turn of the loop, all granted."""

    def __init__(self) -> None:
        self._waiting: list[tuple[HoldRequest, asyncio.Future[HoldAnswer]]] = []

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """Grant the whole estimate with the next batch."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[HoldAnswer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._grant)
        self._waiting.append((request, answer))
        return await answer

    async def find_available(self, account_id: str) -> int:
        """Return more than any request costs."""
        return 10**15

    def expected_wait_s(self, account_id: str) -> float:
        """Return 0."""
        return 0.0

    async def release(self, hold_ids: Sequence[UUID]) -> int:
        """Release nothing."""
        return 0

    def release_later(self, hold_ids: Sequence[UUID]) -> None:
        """Release nothing."""

    def _grant(self) -> None:
        granted, self._waiting = self._waiting, []
        for request, answer in granted:
            if not answer.done():
                bound = request.estimate
                answer.set_result(HoldPlaced(request.hold_id, 1, bound.max_tokens))


class _OnePrincipal:
    async def find(self, presented: Presented) -> Principal | None:
        return Principal("benchbenchbench1", "bench", markup_bps=500)


class _OneModel(PostgresCatalogue):
    def __init__(self) -> None:
        """Need no pool."""

    async def load_models(self) -> dict[str, Model]:
        price = Price(1, MODEL, datetime(2026, 1, 1, tzinfo=UTC), 150_000, 600_000)
        return {MODEL: Model(MODEL, "Bench", 128_000, 4_096, price)}

    async def load_offers(self) -> list[Offer]:
        return []


class _OneKey(PostgresProviderKeys):
    def __init__(self) -> None:
        """Need no pool."""

    async def find_key(self, provider: str, owner: str) -> StoredKey | None:
        return StoredKey(SecretText("sk-or-bench"), 1, datetime(2026, 1, 1, tzinfo=UTC), None)


class _NoRoutes(RoutingStore):
    def __init__(self) -> None:
        """Need no pool."""

    async def load(self, listed: Mapping[str, Model], offers: Iterable[Offer]) -> Routing:
        dialects = {DEFAULT_PROVIDER: DialectName.OPENROUTER}
        return Routing(RoutingTable(listed), dialects)


class _NoRules(LimitRuleStore):
    def __init__(self) -> None:
        """Need no pool."""

    async def list_all(self) -> list[Any]:
        return []


class _NoLimits:
    """A limiter that is never asked, because nothing has a limit."""

    def __init__(self, clock: Clock) -> None:
        self._refusals = RecentRefusals(clock)

    def find_refusal(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        return self._refusals.find(limits)

    async def take(self, uses: Sequence[LimitUse]) -> LimitAnswer:
        return ADMITTED


@dataclass(frozen=True, slots=True)
class Bench:
    """A service of checks, and the check that it is asked."""

    service: CheckService
    decider: Decider
    payloads: list[bytes]


async def _open_bench() -> Bench:
    clock, metrics = SystemClock(), Metrics(CollectorRegistry())
    pepper = Pepper(bytes(32))
    snapshot = CatalogueSnapshot(_OneModel(), _OneKey(), _NoRules(), _NoRoutes(), metrics)
    await snapshot.refresh()
    cache = PrincipalCache(_OnePrincipal(), clock, metrics, 0.9)
    decider = Decider(
        Authenticator(CredentialResolver(pepper, cache, cast(Any, None))),
        snapshot,
        Limits(_NoLimits(clock), snapshot, metrics),
        GrantingHolds(),
        clock,
        metrics,
        Terms(floor_tokens=16, max_body_bytes=24 * 2**20, refusal_step_s=0.01),
        # As `make bench` runs it: no reports are taken.
        last_uses=LastUses(),
    )
    service = CheckService(decider, clock, metrics, 1.5)
    key = mint().plain.reveal()
    return Bench(service, decider, [_to_check(key) for _ in range(64)])


def _to_check(key: str) -> bytes:
    """Return the check that Envoy sends for a request of `make bench`."""
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {key}",
        "content-length": str(len(BODY)),
        "x-forwarded-for": "127.0.0.1",
        "x-request-id": str(uuid4()),
        "x-envoy-auth-partial-body": "false",
    }
    peer = AttributeContext.Peer(address=Address(socket_address=SocketAddress(address="127.0.0.1")))
    http = AttributeContext.HttpRequest(
        method="POST",
        path="/v1/chat/completions",
        raw_body=BODY.encode(),
        size=len(BODY),
        header_map=HeaderMap(
            headers=[HeaderValue(key=k, raw_value=v.encode()) for k, v in headers.items()]
        ),
    )
    return CheckRequest(
        attributes=AttributeContext(
            source=peer,
            request=AttributeContext.Request(http=http),
            context_extensions={"partial-body": "65536"},
        )
    ).SerializeToString()


class _Memory(asyncio.Transport):
    """A transport to nowhere, which counts the ends of answers."""

    def __init__(self) -> None:
        super().__init__()
        self._missing = 0
        self._all_came = asyncio.Event()

    async def expect(self, answers: int) -> None:
        """Wait until so many answers were written."""
        self._missing = answers
        self._all_came.clear()
        await self._all_came.wait()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        ended = bytes(data).count(RESPONSE_TRAILERS)
        self._missing -= ended
        if ended and not self._missing:
            self._all_came.set()

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Limit nothing."""


async def measure_in_memory() -> dict[str, float]:
    """Return the units and microseconds of a check, from its frames to those of its answer.

    Neither sockets nor another process take part, and each round is short. So on a busy machine
    the best of many rounds is still undisturbed.
    """
    configure_logs("json", "warning")
    bench = await _open_bench()
    loop = asyncio.get_running_loop()
    connection, memory = Connection(Intake(bench.service.check, ConnectionLimits())), _Memory()
    connection.connection_made(memory)
    window = (2**30).to_bytes(4)
    opening = frames.PREFACE + frames.settings((frames.INITIAL_WINDOW_SIZE, 2**30))
    connection.data_received(opening + frames.frame(frames.WINDOW_UPDATE, 0, 0, window))
    spare_long_lived_objects()
    stream_ids = itertools.count(1, 2)
    checks_us, units_us = [], []
    for _ in range(SHORT_ROUNDS):
        asked = [
            b"".join(call_frames(next(stream_ids), payload) for payload in batch)
            for batch in zip(*[iter(bench.payloads)] * AT_ONCE, strict=True)
        ]
        units_us.append(unit_us(SHORT_UNITS))
        began_s = time.process_time()
        for received in asked:
            loop.call_soon(connection.data_received, received)
            await memory.expect(AT_ONCE)
        checks_us.append((time.process_time() - began_s) / len(bench.payloads) * 1e6)
    connection.connection_lost(None)
    return {
        "units": round(min(checks_us) / min(units_us), 2),
        "cpu_us": round(min(checks_us), 1),
        "unit_us": round(min(units_us), 2),
    }


class _Timer(Trace):
    """Notes when each phase begins."""

    __slots__ = ("began",)

    def __init__(self) -> None:
        self.began: list[tuple[Phase, float]] = []

    def begin(self, phase: Phase) -> None:
        self.began.append((phase, time.perf_counter()))


async def _measure_phases(bench: Bench) -> dict[str, float]:
    """Return the median microseconds of each part of a check, from a clock that is read between.

    Where other processes take the processor, a median is not much disturbed.
    """
    spent: dict[str, list[float]] = {}
    for turn in range(3_000):
        payload = bench.payloads[turn % len(bench.payloads)]
        trace = _Timer()
        at = [time.perf_counter()]
        request = wire.from_check(payload)
        at.append(time.perf_counter())
        assert request is not None
        decision = await bench.decider.decide(request, time.monotonic() + 10, trace)
        at.append(time.perf_counter())
        wire.from_decision(decision)
        at.append(time.perf_counter())
        marks = [("read the check", at[0])]
        marks += [(phase.name.lower(), began) for phase, began in trace.began]
        marks += [("write the answer", at[2]), ("", at[3])]
        for (name, began), (_, ended) in itertools.pairwise(marks):
            spent.setdefault(name, []).append((ended - began) * 1e6)
    return {name: round(median(values), 1) for name, values in spent.items()}


async def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the CPU of a check, the least and the median of some rounds, and its phases."""
    configure_logs("json", "warning")
    bench = await _open_bench()
    with tempfile.TemporaryDirectory(prefix="tkd-", dir="/tmp") as folder:
        path = f"{folder}/a.sock"
        transport = Http2Transport()
        await transport.start(bench.service.check, f"unix:{path}")
        spare_long_lived_objects()
        asker = await _Asker.start(path, bench.payloads)
        await asker.ask()
        rounds_us, units_us = [], []
        for _ in range(rounds):
            units_us.append(unit_us())
            gc.collect()
            began_s = time.process_time()
            await asker.ask()
            rounds_us.append((time.process_time() - began_s) / (TURNS_A_ROUND * AT_ONCE) * 1e6)
        await asker.stop()
        await transport.stop(0)
    return {
        "python": platform.python_version(),
        "cpu_us": round(min(rounds_us), 1),
        "median_cpu_us": round(median(rounds_us), 1),
        "unit_us": round(min(units_us), 2),
        "units": round(min(rounds_us) / min(units_us), 2),
        "in_memory": await measure_in_memory(),
        "phases_us": await _measure_phases(bench),
    }


class _Asker:
    """Another process that asks, so that its work is not counted here."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, path: str, payloads: Sequence[bytes]) -> "_Asker":
        """Start the process, which asks these checks at a socket."""
        program = Path(__file__).with_name("asking.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(str(program), path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        asker = cls(process)
        lines = [base64.b64encode(payload) for payload in payloads]
        await asker._tell(b" ".join(lines))
        return asker

    async def ask(self) -> None:
        """Have one round of checks asked and answered."""
        await self._tell(b"%d %d" % (TURNS_A_ROUND, AT_ONCE))

    async def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        await self._process.wait()

    async def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + b"\n")
        if not await self._process.stdout.readline():
            raise RuntimeError("the checks were not answered")


def main() -> int:
    """Print the figures of this clone, or of two in turns."""
    parser = argparse.ArgumentParser(prog="python -m bench.deciding", description=__doc__)
    parser.add_argument("--clone", type=Path, help="the folder of another clone, to compare with")
    parser.add_argument("--python", help="another interpreter, with the packages of this one")
    parser.add_argument("--turns", type=int, default=3, help="turns of each side")
    parser.add_argument("--memory", action="store_true", help="only the part without sockets")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    chosen = parser.parse_args()
    if chosen.clone is None and chosen.python is None:
        figures = uvloop.run(measure_in_memory() if chosen.memory else measure())
        sys.stdout.write(json.dumps(figures, indent=None if chosen.json else 2) + "\n")
        return 0
    other = (chosen.clone or _THIS_CLONE).resolve()
    interpreter = chosen.python or str(other / ".venv/bin/python")
    sides = {"this": (_THIS_CLONE, sys.executable), "other": (other, interpreter)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(chosen.turns):
        for name, (clone, python) in sides.items():
            found[name].append(_run(clone, python))
    for name, rows in found.items():
        sys.stdout.write(f"{name}: {json.dumps(min(rows, key=_cpu_us))}\n")
    ratios = [_cpu_us(a) / _cpu_us(b) for a, b in zip(*found.values(), strict=True)]
    sys.stdout.write(f"CPU of a check, this to other: {median(ratios):.3f}\n")
    return 0


def _cpu_us(figures: Mapping[str, Any]) -> float:
    return float(figures["cpu_us"])


def _run(clone: Path, python: str) -> dict[str, Any]:
    """Measure the code of a clone with this bench, which an older clone may not have."""
    with tempfile.TemporaryDirectory(prefix="tkd-", dir="/tmp") as folder:
        for home, package in ((clone, "authz"), (clone, "meter"), (_THIS_CLONE, "bench")):
            Path(folder, package).symlink_to(home / package)
        done = subprocess.run(
            [python, "-m", "bench.deciding", "--json"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": folder},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
