"""The whole chain beside plain Envoy: throughput, latency, CPU per request."""

import contextlib
import os
import platform
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench import static
from bench.calibration import best_unit_us
from bench.identity import measure_identity
from bench.load import PATH, Slice, median, paced, run_slice, write_script
from bench.peers import Peer, peers_running
from bench.processes import cpu_seconds, envoy_running
from bench.stack import BenchStack, running_stack
from tollkeeper.stack.servers.ports import free_port

CONNECTIONS: Final = (1, 16, 64)
CPU_CONNECTIONS: Final = 16
SLICE_S: Final = 1
WARM_UP_S: Final = 3
PACED_PER_SECOND: Final = 100

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sides:
    """Both gateways in front of one static upstream, and the stack behind one of them."""

    plain_url: str
    whole_url: str
    script: Path
    stack: BenchStack
    folder: Path
    peers: Sequence[Peer]


async def measure_gateway(
    slices: int, paced_seconds: int, with_peers: bool, say: Say
) -> dict[str, Any]:
    """Start everything, measure in turns, check the books, end everything.

    Raises LoadGeneratorMissing when wrk is not on this machine, PeerMissing when a peer is not.
    """
    async with _sides(with_peers, say) as sides:
        say("warming up")
        for url, script in (
            (sides.plain_url, sides.script),
            (sides.whole_url, sides.script),
            *((peer.url, peer.script) for peer in sides.peers),
        ):
            run_slice(url, script, CPU_CONNECTIONS, WARM_UP_S)
        throughput = [_throughput(sides, count, slices, say) for count in CONNECTIONS]
        say("CPU per request")
        cpu, unit = _cpu_per_request(sides, slices), best_unit_us()
        say(f"latency at {PACED_PER_SECOND} requests a second")
        latency = await _paced(sides, paced_seconds)
        identity = await measure_identity(sides.stack, sides.folder, slices, say)
        say("checking the books")
        books = await sides.stack.verified_books()
    return {
        "machine": _machine(),
        "throughput": throughput,
        "cpu_us_per_request": cpu,
        "unit_us": round(unit, 2),
        "paced": latency,
        "identity": identity,
        "books": books,
    }


@contextlib.asynccontextmanager
async def _sides(with_peers: bool, say: Say) -> AsyncIterator[Sides]:
    with tempfile.TemporaryDirectory(prefix="tkb-", dir="/tmp") as name, plain(name) as ports:
        upstream_port, plain_port = ports
        folder = Path(name)
        say("starting the whole system")
        async with contextlib.AsyncExitStack() as running:
            stack = await running.enter_async_context(running_stack(folder / "home", upstream_port))
            peers: Sequence[Peer] = ()
            if with_peers:
                say("installing and starting the peers")
                peers = running.enter_context(peers_running(folder, upstream_port))
            script = folder / "ask.lua"
            write_script(script, stack.key)
            plain_url = f"http://127.0.0.1:{plain_port}{PATH}"
            yield Sides(plain_url, stack.gateway + PATH, script, stack, folder, peers)


@contextlib.contextmanager
def plain(folder: str) -> Iterator[tuple[int, int]]:
    """Run the static upstream and a plain Envoy before it; yields the ports of both."""
    upstream_port, plain_port = free_port(), free_port()
    upstream, proxy = Path(folder) / "upstream.yaml", Path(folder) / "proxy.yaml"
    static.write_upstream(upstream, upstream_port)
    static.write_proxy(proxy, plain_port, upstream_port)
    with envoy_running(upstream, upstream_port), envoy_running(proxy, plain_port):
        yield upstream_port, plain_port


def _throughput(sides: Sides, connections: int, slices: int, say: Say) -> dict[str, Any]:
    say(f"{connections} connections, {slices} slices of each")
    plain: list[Slice] = []
    whole: list[Slice] = []
    peers: dict[str, list[Slice]] = {peer.name: [] for peer in sides.peers}
    drains: list[float] = []
    for _ in range(slices):
        plain.append(run_slice(sides.plain_url, sides.script, connections, SLICE_S))
        whole.append(run_slice(sides.whole_url, sides.script, connections, SLICE_S))
        # What this slice left to settle must not slow the next one, which is another gateway's.
        started = time.monotonic()
        sides.stack.wait_until_settled()
        drains.append(time.monotonic() - started)
        for peer in sides.peers:
            peers[peer.name].append(run_slice(peer.url, peer.script, connections, SLICE_S))
    return {
        "connections": connections,
        "plain_per_second": round(median([each.per_second for each in plain])),
        "whole_per_second": round(median([each.per_second for each in whole])),
        "ratio": round(_ratio(whole, plain), 3),
        "plain_p50_ms": round(median([each.p50_ms for each in plain]), 2),
        "plain_p99_ms": round(median([each.p99_ms for each in plain]), 2),
        "whole_p50_ms": round(median([each.p50_ms for each in whole]), 2),
        "whole_p99_ms": round(median([each.p99_ms for each in whole]), 2),
        "settled_after_s": round(median(drains), 2),
        "refused": sum(each.failed for each in whole),
        "peers": {
            name: {
                "per_second": round(median([each.per_second for each in taken])),
                "whole_to_it": round(_ratio(whole, taken), 2),
                "p50_ms": round(median([each.p50_ms for each in taken]), 2),
                "refused": sum(each.failed for each in taken),
            }
            for name, taken in peers.items()
        },
    }


def _ratio(ours: list[Slice], others: list[Slice]) -> float:
    """The median of the paired slices' ratios."""
    return median([a.per_second / b.per_second for a, b in zip(ours, others, strict=True)])


def _cpu_per_request(sides: Sides, slices: int) -> dict[str, int]:
    """CPU of every component over whole-chain slices, settlement included."""
    before = cpu_seconds(sides.stack.processes())
    asked = sum(
        run_slice(sides.whole_url, sides.script, CPU_CONNECTIONS, SLICE_S).requests
        for _ in range(slices)
    )
    sides.stack.wait_until_settled()
    after = cpu_seconds(sides.stack.processes())
    spent = {name: round((after[name] - before[name]) / asked * 1e6) for name in after}
    return spent | {"total": sum(spent.values())}


async def _paced(sides: Sides, seconds: int) -> dict[str, float]:
    key = sides.stack.key
    urls = [sides.plain_url, sides.whole_url]
    bare, ours = await paced(urls, key, PACED_PER_SECOND, seconds)
    return {
        "plain_p50_ms": round(median(bare), 2),
        "whole_p50_ms": round(median(ours), 2),
        "added_p50_ms": round(median(ours) - median(bare), 2),
        "whole_p99_ms": round(sorted(ours)[int(len(ours) * 0.99)], 2),
    }


def _machine() -> str:
    memory_gib = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()} ({platform.python_compiler()})"
    )
