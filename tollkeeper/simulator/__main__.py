"""``python -m tollkeeper.simulator --listen 127.0.0.1:PORT --bill PATH``."""

import argparse
import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop
from aiohttp import web

from meter.errors import InvalidRequest
from meter.listening import ListenAddress, parse_address
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill, BillError
from tollkeeper.simulator.settings import SimulatorSettings

ACCEPT_BACKLOG = 1_024


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of the command line."""

    host: str
    port: int
    bill: Path
    seed: int
    delay_ms: int


def main() -> int:
    """Serve until SIGTERM or SIGINT; return 0 after draining, 1 if the start fails."""
    parser = argparse.ArgumentParser(prog="python -m tollkeeper.simulator", description=__doc__)
    parser.add_argument("--listen", required=True, type=_address, metavar="HOST:PORT")
    parser.add_argument("--bill", required=True, type=Path, metavar="PATH")
    parser.add_argument("--seed", type=int, default=0, help="seed of the answers' words")
    parser.add_argument(
        "--delay-ms", type=int, default=0, help="wait before the headers of each answer"
    )
    given = parser.parse_args()
    host, port = given.listen
    arguments = Arguments(host, port, given.bill, given.seed, given.delay_ms)
    is_console = os.environ.get("TOLLKEEPER_LOG_FORMAT") == "console"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if is_console else structlog.processors.JSONRenderer(),
        ]
    )
    try:
        uvloop.run(_serve(arguments, SimulatorSettings()))
    except (BillError, OSError) as error:
        sys.stderr.write(f"The simulator cannot start: {error}\n")
        return 1
    return 0


async def _serve(arguments: Arguments, settings: SimulatorSettings) -> None:
    log = structlog.get_logger()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    bill = Bill(arguments.bill)
    app = build_app(bill, settings, seed=arguments.seed, delay_ms=arguments.delay_ms)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=settings.drain_seconds)
    try:
        await runner.setup()
        site = web.TCPSite(runner, arguments.host, arguments.port, backlog=ACCEPT_BACKLOG)
        await site.start()
        where = f"{arguments.host}:{arguments.port}"
        log.info("simulator_listening", listen=where, bill_rows=bill.row_count)
        await stopped.wait()
    finally:
        await runner.cleanup()
        await bill.close()
    log.info("simulator_stopped", bill_rows=bill.row_count, bill_sum=bill.total_usd)


def _address(text: str) -> tuple[str, int]:
    try:
        address = parse_address(text)
    except InvalidRequest:
        address = ListenAddress()
    if not address.host:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return address.host, address.port


if __name__ == "__main__":
    sys.exit(main())
