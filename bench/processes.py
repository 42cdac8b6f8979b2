"""Processes of a run: started, timed by the operating system's own accounting, ended."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from meter.postgres.pool import PostgresPool
from tollkeeper.stack.servers.binaries import envoy_binary

READY_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 10.0
_SESSIONS: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
"""


@contextlib.contextmanager
def envoy_running(config: Path, port: int) -> Iterator[psutil.Process]:
    """Run a plain Envoy with as many workers as the stack's own."""
    command = [str(envoy_binary()), "-c", str(config), "--disable-hot-restart", "-l", "error"]
    command += ["--concurrency", str(min(4, os.cpu_count() or 1))]
    with server_running(command, port, config.with_suffix(".log")) as process:
        yield process


@contextlib.contextmanager
def server_running(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    """Run a server and its children; yields once it listens on the port.

    Raises RuntimeError, with the end of its log, when it does not within READY_TIMEOUT_S.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            env=os.environ | dict(environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    process = psutil.Process(child.pid)
    try:
        if not _listens(child, port):
            said = log.read_text(errors="replace")[-500:]
            raise RuntimeError(f"{command[0]} does not listen on port {port}: {said}")
        yield process
    finally:
        # Workers outlive a parent that ends without them.
        workers = [] if child.poll() is not None else process.children(recursive=True)
        child.terminate()
        child.wait()
        _, alive = psutil.wait_procs(workers, timeout=STOP_TIMEOUT_S)
        for worker in alive:
            worker.kill()


def cpu_seconds(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """User and system CPU seconds of each process and its children so far."""
    return {name: _with_children(process) for name, process in processes.items()}


def memory_mib(processes: Mapping[str, psutil.Process]) -> dict[str, int]:
    """Unshared memory of each process and its children, in MiB."""
    return {
        name: round(
            sum(
                each.memory_full_info().uss for each in [process, *process.children(recursive=True)]
            )
            / 2**20
        )
        for name, process in processes.items()
    }


def get(url: str) -> bytes:
    """The body of a GET on loopback."""
    with urllib.request.urlopen(url, timeout=10) as response:
        body: bytes = response.read()
    return body


def _with_children(process: psutil.Process) -> float:
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def _listens(child: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False


async def sessions_cpu_ns(pool: PostgresPool) -> int:
    """Return the CPU so far of all sessions of a pool's database; Postgres is on this machine.

    The scheduler counts nanoseconds, `times` only ticks.
    """
    rows = await pool.fetch(_SESSIONS)
    stats = (Path(f"/proc/{row['pid']}/schedstat").read_text() for row in rows)
    return sum(int(one.split()[0]) for one in stats)
