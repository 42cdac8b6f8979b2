"""Processes of a run: started, timed by the operating system's own accounting, ended."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from tollkeeper.stack.servers.binaries import envoy_binary

READY_TIMEOUT_S: Final = 60.0


@contextlib.contextmanager
def envoy_running(config: Path, port: int) -> Iterator[psutil.Process]:
    """A plain Envoy with as many workers as the stack's own."""
    command = [str(envoy_binary()), "-c", str(config), "--disable-hot-restart", "-l", "error"]
    command += ["--concurrency", str(min(4, os.cpu_count() or 1))]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for_port(port)
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait()


def cpu_seconds(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """User and system CPU seconds of each process and its children so far."""
    return {name: _with_children(process) for name, process in processes.items()}


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


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")
