"""Several providers of one dialect in a process of their own, and their bills."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from chaos.upstream import BillRow, read_bill
from tollkeeper.stack.servers.ports import free_port

END_TIMEOUT_S: Final = 60.0
LISTEN_TIMEOUT_S: Final = 120.0
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class SimulatedProvider:
    """One provider: its name in the simulator, its address and its bill."""

    name: str
    port: int
    base_path: str
    bill_path: Path

    @property
    def origin(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}{self.base_path}"

    def bill(self) -> list[BillRow]:
        return read_bill(self.bill_path)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The providers of one simulator process, and the address that switches them off."""

    control: str
    providers: tuple[SimulatedProvider, ...]

    async def listen(
        self, session: aiohttp.ClientSession, provider: SimulatedProvider, *, is_listening: bool
    ) -> None:
        """Let a provider refuse connections, or accept them again."""
        url = f"{self.control}/control/dialects/{provider.name}"
        async with session.put(url, json={"is_listening": is_listening}) as reply:
            reply.raise_for_status()


@contextlib.contextmanager
def running_fleet(folder: Path, names: Sequence[str], base_path: str = "/v1") -> Iterator[Fleet]:
    """Start a simulator with these providers, and end it. Bills are in `folder`.

    Raises RuntimeError when it does not listen.
    """
    port = free_port()
    providers = tuple(
        SimulatedProvider(name, free_port(), base_path, folder / f"{name}.jsonl") for name in names
    )
    command = [sys.executable, "-P", "-m", "tollkeeper.simulator"]
    command += ["--listen", f"{LOOPBACK}:{port}", "--bill", str(folder / "bill.jsonl")]
    for one in providers:
        command += ["--dialect", f"{one.name}={LOOPBACK}:{one.port}"]
    with (folder / "simulator.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        # The address of --listen is opened last.
        _await_listening(port, process, folder / "simulator.log")
        yield Fleet(f"http://{LOOPBACK}:{port}", providers)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_listening(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(int(LISTEN_TIMEOUT_S / 0.1)):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            break
    raise RuntimeError(f"the simulator does not listen:\n{log.read_text()}")
