"""Load: wrk for throughput, a paced asyncio client for latency at a given rate."""

import asyncio
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from bench.static import MODEL

PATH: Final = "/v1/chat/completions"
BODY: Final = (
    '{"model":"' + MODEL + '","max_tokens":16,'
    '"messages":[{"role":"user","content":"Say good day twenty times, in one line, please."}]}'
)
_UNITS_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class LoadGeneratorMissing(Exception):
    """wrk is not on this machine."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One second of load. Latencies are milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def write_script(path: Path, key: str, headers: Mapping[str, str] | None = None) -> None:
    """Write wrk's script, with further headers; the key stays out of its command line."""
    sent = {"content-type": "application/json", "authorization": f"Bearer {key}", **(headers or {})}
    path.write_text(
        f"wrk.method = \"POST\"\nwrk.body = '{BODY}'\n"
        + "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in sent.items())
    )
    path.chmod(0o600)


def write_script_of_body(path: Path, key: str, body: str) -> None:
    """Write a script that sends this body, however long, from a file beside it."""
    beside = path.with_suffix(".json")
    beside.write_text(body)
    write_script(path, key)
    with path.open("a") as script:
        script.write(f'wrk.body = io.open("{beside}"):read("*a")\n')


def write_scripts_of_many(path: Path, credentials: Iterable[str]) -> Path:
    """Write a script that presents each credential once, from a file beside it."""
    beside = path.with_suffix(".txt")
    beside.write_text("".join(f"{credential}\n" for credential in credentials))
    beside.chmod(0o600)
    path.write_text(
        'wrk.method = "POST"\n'
        f"wrk.body = '{BODY}'\n"
        'wrk.headers["content-type"] = "application/json"\n'
        "local credentials, at = {}, 0\n"
        f'for line in io.lines("{beside}") do credentials[#credentials + 1] = line end\n'
        "function request()\n"
        "  at = at % #credentials + 1\n"
        '  wrk.headers["authorization"] = "Bearer " .. credentials[at]\n'
        "  return wrk.format()\n"
        "end\n"
    )
    path.chmod(0o600)
    return path


def run_slice(url: str, script: Path, connections: int, seconds: int) -> Slice:
    """One slice of wrk. Raises LoadGeneratorMissing when there is no wrk."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise LoadGeneratorMissing("wrk is missing: `apt-get install wrk`, then again")
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return _read(output)


async def paced(urls: Sequence[str], key: str, per_second: int, seconds: int) -> list[list[float]]:
    """Ask at a fixed rate whatever the answers take, a second of each URL in turn.

    Returns the milliseconds of each answer, per URL. Raises aiohttp.ClientResponseError when one
    is refused.
    """
    taken: list[list[float]] = [[] for _ in urls]
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(seconds):
            for url, times in zip(urls, taken, strict=True):
                times += await _one_second(session, url, per_second)
    return taken


async def _one_second(session: aiohttp.ClientSession, url: str, per_second: int) -> list[float]:
    async def ask() -> float:
        started = time.perf_counter()
        async with session.post(url, data=BODY) as response:
            await response.read()
            response.raise_for_status()
        return (time.perf_counter() - started) * 1000

    begin = time.perf_counter()
    asked = []
    for turn in range(per_second):
        await asyncio.sleep(max(0.0, begin + turn / per_second - time.perf_counter()))
        asked.append(asyncio.create_task(ask()))
    return await asyncio.gather(*asked)


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def _read(output: str) -> Slice:
    done = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s)", output)
    if done is None:
        raise ValueError(f"wrk said something else: {output}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return Slice(
        requests=int(done[1]),
        seconds=float(done[2]) * _UNITS_MS[done[3]] / 1000,
        p50_ms=_percentile(output, "50%"),
        p99_ms=_percentile(output, "99%"),
        failed=int(failed[1]) if failed else 0,
    )


def _percentile(output: str, label: str) -> float:
    found = re.search(rf"{label}\s+([\d.]+)(us|ms|s)", output)
    if found is None:
        raise ValueError(f"wrk printed no {label} latency")
    return float(found[1]) * _UNITS_MS[found[2]]
