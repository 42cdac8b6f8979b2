"""``python -m tollkeeper.simulator --listen 127.0.0.1:PORT --bill PATH``."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop
from aiohttp import web

from meter.errors import InvalidRequest
from meter.listening import ListenAddress, parse_address
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill, BillError
from tollkeeper.simulator.dialects import DIALECTS, OPENROUTER
from tollkeeper.simulator.dialects.dialect import ProviderDialect
from tollkeeper.simulator.listening import Listener, Switches
from tollkeeper.simulator.settings import SimulatorSettings

OTHERS = tuple(name for name in DIALECTS if name != OPENROUTER.id)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of the command line."""

    host: str
    port: int
    bill: Path
    seed: int
    delay_ms: int
    providers: tuple[tuple[str, ProviderDialect, str, int], ...]


def main() -> int:
    """Serve until SIGTERM or SIGINT; return 0 after draining, 1 if the start fails."""
    parser = argparse.ArgumentParser(prog="python -m tollkeeper.simulator", description=__doc__)
    parser.add_argument("--listen", required=True, type=_address, metavar="HOST:PORT")
    parser.add_argument("--bill", required=True, type=Path, metavar="PATH")
    parser.add_argument("--seed", type=int, default=0, help="seed of the answers' words")
    parser.add_argument(
        "--delay-ms", type=int, default=0, help="wait before the headers of each answer"
    )
    parser.add_argument(
        "--dialect",
        action="append",
        default=[],
        type=_provider,
        metavar="NAME=HOST:PORT",
        help=f"serve one more provider at an address of its own; NAME is its dialect"
        f" ({', '.join(OTHERS)}), and may end in a dash and a number",
    )
    given = parser.parse_args()
    host, port = given.listen
    providers = tuple(given.dialect)
    if len({name for name, *_ in providers}) < len(providers):
        parser.error("--dialect: each provider needs a name of its own")
    arguments = Arguments(host, port, given.bill, given.seed, given.delay_ms, providers)
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
    async with AsyncExitStack() as running:

        async def listen(
            dialect: ProviderDialect,
            host: str,
            port: int,
            path: Path,
            more: Sequence[web.RouteDef] = (),
        ) -> tuple[Listener, Bill]:
            bill = Bill(path)
            running.push_async_callback(bill.close)
            app = build_app(
                bill, settings, dialect=dialect, seed=arguments.seed, delay_ms=arguments.delay_ms
            )
            app.add_routes(more)
            listener = Listener(app, dialect, host, port, settings.drain_seconds)
            running.push_async_callback(listener.close)
            await listener.start()
            log.info("simulator_listening", base_url=listener.base_url, bill_rows=bill.row_count)
            return listener, bill

        others: dict[str, Listener] = {}
        for name, dialect, host, port in arguments.providers:
            path = arguments.bill.with_name(f"{name}.jsonl")
            others[name], _ = await listen(dialect, host, port, path)
        switches = Switches(others).routes()
        _, bill = await listen(OPENROUTER, arguments.host, arguments.port, arguments.bill, switches)
        await stopped.wait()
    log.info("simulator_stopped", bill_rows=bill.row_count, bill_sum=bill.total_usd)


def _address(text: str) -> tuple[str, int]:
    try:
        address = parse_address(text)
    except InvalidRequest:
        address = ListenAddress()
    if not address.host:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return address.host, address.port


def _provider(text: str) -> tuple[str, ProviderDialect, str, int]:
    name, _, where = text.partition("=")
    dialect_id, dash, number = name.partition("-")
    if dialect_id not in OTHERS or bool(dash) != number.isdecimal():
        raise argparse.ArgumentTypeError(f"{name!r} does not begin with one of {', '.join(OTHERS)}")
    return (name, DIALECTS[dialect_id], *_address(where))


if __name__ == "__main__":
    sys.exit(main())
