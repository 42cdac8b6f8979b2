"""``python -m tollkeeper.simulator.stripe --listen 127.0.0.1:PORT``."""

import argparse
import asyncio
import os
import signal
import sys

import structlog
import uvloop
from pydantic import ValidationError

from meter.errors import InvalidRequest
from meter.listening import ListenAddress, parse_address
from tollkeeper.simulator.stripe.app import running
from tollkeeper.simulator.stripe.settings import StripeSimulatorSettings


def main() -> int:
    """Serve until SIGTERM or SIGINT; return 0 after draining, 1 if the start fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tollkeeper.simulator.stripe", description=__doc__
    )
    parser.add_argument("--listen", required=True, type=_address, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=0, help="seed of faults with a percentage")
    given = parser.parse_args()
    is_console = os.environ.get("TOLLKEEPER_LOG_FORMAT") == "console"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if is_console else structlog.processors.JSONRenderer(),
        ]
    )
    try:
        host, port = given.listen
        uvloop.run(_serve(host, port, given.seed, StripeSimulatorSettings()))
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"The Stripe simulator cannot start: {error}\n")
        return 1
    return 0


async def _serve(host: str, port: int, seed: int, settings: StripeSimulatorSettings) -> None:
    log = structlog.get_logger()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with running(settings, host, port, seed=seed) as simulator:
        log.info("stripe_simulator_listening", url=simulator.url)
        await stopped.wait()
    log.info("stripe_simulator_stopped", events=len(simulator.world.events))


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
