"""The parts of the payments campaign: Postgres, Stripe's stand-in here, meters that get killed."""

import asyncio
import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from chaos.payments.meter import UNIQUE_KEY, WITHOUT
from meter.postgres.migrate import migrate
from tollkeeper.simulator.stripe.app import StripeSimulator, running
from tollkeeper.simulator.stripe.settings import StripeSimulatorSettings
from tollkeeper.stack.servers import binaries, postgres
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.servers.privileges import run_as
from tollkeeper.stack.supervision.children import die_with_parent

OPERATOR_TOKEN: Final = "operator-token-of-the-payments-campaign"
STRIPE_KEY: Final = "sk_test_of_the_payments_campaign"
WEBHOOK_SECRET: Final = "whsec_of_the_payments_campaign"
READY_MOST_S: Final = 300.0
POLL_S: Final = 0.2
METERS: Final = 2
# Shorter than Stripe's, so that a meter that is away for seconds loses events for good.
RETRY_SECONDS: Final = (0.5, 1.0, 2.0)
_WITHOUT_UNIQUE_KEY: Final = (
    "ALTER TABLE payments DROP CONSTRAINT payments_pkey CASCADE;"
    "ALTER TABLE payments DROP CONSTRAINT payments_posting_id_key"
)


@dataclass
class MeterProcess:
    """A meter of the campaign, which is killed and started again."""

    address: str
    environment: dict[str, str]
    log: Path
    child: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "chaos.payments.meter"]
        self.child = _start(command, self.log, self.environment, signal.SIGKILL)

    async def end(self, how: signal.Signals) -> None:
        """Send a signal and wait until the process is gone."""
        assert self.child is not None
        self.child.send_signal(how)
        await asyncio.to_thread(self.child.wait)

    async def wait_ready(self, session: aiohttp.ClientSession) -> None:
        """Wait until the API answers. Raises RuntimeError with the log where it never does."""
        try:
            async with asyncio.timeout(READY_MOST_S):
                while not await self._answers(session):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise RuntimeError(
                f"the meter does not start:\n{self.log.read_text()[-4000:]}"
            ) from None

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/healthz") as reply:
                return reply.status == 200
        except aiohttp.ClientError:
            return False


@dataclass
class Shop:
    """The parts that run during a campaign."""

    stripe: StripeSimulator
    meters: list[MeterProcess]
    session: aiohttp.ClientSession
    owner_dsn: str
    service_dsn: str
    kills: int = 0

    async def kill_at_random(self, chance: random.Random, every_s: tuple[float, float]) -> None:
        """Kill one meter after the other, until cancelled."""
        while True:
            await asyncio.sleep(chance.uniform(*every_s))
            victim = chance.choice(self.meters)
            await victim.end(signal.SIGKILL)
            self.kills += 1
            victim.start()
            await victim.wait_ready(self.session)

    async def save_customer(self, account_id: str, customer_id: str) -> None:
        """Make a customer that lives on a test clock stand for an account."""
        owner = await asyncpg.connect(self.owner_dsn)
        await owner.execute(
            "INSERT INTO stripe_customers (account_id, is_live, customer_id)"
            " VALUES ($1, false, $2)",
            account_id,
            customer_id,
        )
        await owner.close()

    async def restart(self) -> None:
        """End the meters in order and start them again; each sweeps when it starts."""
        for one in self.meters:
            await one.end(signal.SIGTERM)
            one.start()
        for one in self.meters:
            await one.wait_ready(self.session)


@contextlib.asynccontextmanager
async def open_shop(folder: Path, seed: int, without: str | None) -> AsyncIterator[Shop]:
    """Run Postgres, Stripe's stand-in and the meters during the block."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    data = folder / "postgres"
    server = postgres.PostgresServer(
        binaries.postgres_binaries(), data, folder / "pg", run_as(data, "INT")
    )
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(METERS)]
    settings = StripeSimulatorSettings.model_validate(
        {
            "secret_key": STRIPE_KEY,
            "webhook_url": f"http://{addresses[0]}/api/v1/webhooks/stripe",
            "webhook_secret": WEBHOOK_SECRET,
            "webhook_retry_seconds": RETRY_SECONDS,
            "settle_seconds": 1,
        }
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_postgres_running(server, folder / "postgres.log"))
        await postgres.create_roles_and_database(server)
        owner_dsn = server.dsn(postgres.OWNER_ROLE)
        await migrate(owner_dsn)
        if without == UNIQUE_KEY:
            owner = await asyncpg.connect(owner_dsn)
            await owner.execute(_WITHOUT_UNIQUE_KEY)
            await owner.close()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        simulator = await stack.enter_async_context(running(settings, seed=seed))
        master_key = folder / "master.key"
        master_key.write_text(secrets.token_hex(32))
        meters = [
            MeterProcess(
                address,
                {
                    **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    WITHOUT: without or "",
                    "TOLLKEEPER_DATABASE_URL": server.dsn(postgres.SERVICE_ROLE),
                    "TOLLKEEPER_MASTER_KEY_FILE": str(master_key),
                    "TOLLKEEPER_OPERATOR_TOKEN": OPERATOR_TOKEN,
                    "TOLLKEEPER_METER_LISTEN": address,
                    "TOLLKEEPER_INGEST_LISTEN": f"unix:{folder / f'ingest-{number}.sock'}",
                    "TOLLKEEPER_PROVIDER_BASE_URL": "http://127.0.0.1:9/api/v1",
                    "TOLLKEEPER_LOOKUPS_PER_SECOND": "0",
                    "TOLLKEEPER_STRIPE_KEY": STRIPE_KEY,
                    "TOLLKEEPER_STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
                    "TOLLKEEPER_STRIPE_API_BASE": simulator.url,
                },
                folder / f"meter-{number}.log",
            )
            for number, address in enumerate(addresses)
        ]
        shop = Shop(simulator, meters, session, owner_dsn, server.dsn(postgres.SERVICE_ROLE))
        stack.callback(_kill_all, meters)
        for one in meters:
            one.start()
        for one in meters:
            await one.wait_ready(session)
        yield shop


@contextlib.asynccontextmanager
async def _postgres_running(server: postgres.PostgresServer, log: Path) -> AsyncIterator[None]:
    await asyncio.to_thread(server.prepare)
    child = _start(server.command(), log)
    try:
        async with asyncio.timeout(READY_MOST_S):
            while not await postgres.accepts(server):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        yield
    finally:
        child.send_signal(signal.SIGINT)
        await asyncio.to_thread(child.wait)


def _start(
    command: list[str],
    log: Path,
    environment: dict[str, str] | None = None,
    dies_by: signal.Signals = signal.SIGINT,
) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=die_with_parent(dies_by),
            start_new_session=True,
        )


def _kill_all(meters: list[MeterProcess]) -> None:
    for one in meters:
        if one.child is not None:
            one.child.kill()
            one.child.wait()
