"""Which processes make the stack, in which order, and how they find one another."""

import asyncio
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from tollkeeper import envoy_config
from tollkeeper.stack import binaries, demo, postgres, redis_server
from tollkeeper.stack.children import run_to_end
from tollkeeper.stack.component import Component, Phase, Probe, Step
from tollkeeper.stack.environment import (
    server_environment,
    service_environment,
    simulator_environment,
)
from tollkeeper.stack.errors import StackError
from tollkeeper.stack.home import Home, write_private
from tollkeeper.stack.ports import LOOPBACK, free_port_like
from tollkeeper.stack.privileges import run_as
from tollkeeper.stack.probes import answers_ok
from tollkeeper.stack.settings import OPENROUTER_BASE_URL, StackSettings

PROVIDER = "openrouter"
POSTGRES_STOP_TIMEOUT_S = 30.0
CATALOGUE_TIMEOUT_S = 15.0
CATALOGUE_POLL_S = 0.1
BROADCAST_PATH = "/api/v1/provider-reports/openrouter"
# -P: a folder named `redis` where the person stands must not be imported.
PYTHON_MODULE = (sys.executable, "-P", "-m")


@dataclass(frozen=True, slots=True)
class Topology:
    """The parts of one stack. Nothing is started here."""

    home: Home
    settings: StackSettings
    database: postgres.PostgresServer
    redis: redis_server.RedisServer
    simulator_port: int | None

    @property
    def endpoints(self) -> dict[str, str]:
        """The addresses that people and tests use."""
        found = {
            "gateway": f"http://{LOOPBACK}:{self.settings.port}",
            "api": f"http://{LOOPBACK}:{self.settings.api_port}",
        }
        if self.simulator_port:
            found["simulator"] = f"http://{LOOPBACK}:{self.simulator_port}"
        return found

    @property
    def provider_base_url(self) -> str:
        """The upstream, including `/api/v1` or the like."""
        if self.simulator_port:
            return f"{self.endpoints['simulator']}/api/v1"
        return self.settings.openrouter_base_url or OPENROUTER_BASE_URL

    def phases(self) -> tuple[Phase, ...]:
        """Everything to start, in order."""
        first: list[Component | Step] = [self._postgres(), self._redis()]
        if self.simulator_port:
            first.append(self._simulator())
        return (
            (Step("folders", self._prepare),),
            tuple(first),
            (Step("database", self._migrate),),
            (Step("provider", self._seal_provider_key),),
            (self._meter(),),
            # The doorman takes the catalogue in when it starts; it has to be there.
            (Step("catalogue", self._await_catalogue),),
            (self._authz(),),
            (self._envoy(),),
        )

    async def _prepare(self) -> None:
        await asyncio.to_thread(self.database.prepare)
        await asyncio.to_thread(self.redis.prepare)
        for name in ("authz.sock", "authz-health.sock", "ingest.sock", "envoy-admin.sock"):
            (self.home.run / name).unlink(missing_ok=True)
        self._write_envoy_config()

    async def _migrate(self) -> None:
        await postgres.create_roles_and_database(self.database)
        owner = {"TOLLKEEPER_MIGRATION_DATABASE_URL": self.database.dsn(postgres.OWNER_ROLE)}
        await self._run_meter("migrate", owner)

    async def _seal_provider_key(self) -> None:
        key = self.settings.openrouter_api_key
        text = key.get_secret_value() if key else self._simulator_key()
        await self._run_meter("set-provider-key", self._books(), PROVIDER, stdin=text)

    async def _await_catalogue(self) -> None:
        """Wait for models. Those of an earlier run do, so this fails at a first start only."""
        try:
            async with asyncio.timeout(CATALOGUE_TIMEOUT_S):
                while not await demo.find_models(self.endpoints["api"]):  # noqa: ASYNC110
                    await asyncio.sleep(CATALOGUE_POLL_S)
        except TimeoutError:
            raise StackError(
                f"The provider at {self.provider_base_url} has not given its list of models, "
                "without which nothing can be priced; look at OPENROUTER_BASE_URL and the network "
                f"(the reason is in {self.home.logs / 'meter.log'})."
            ) from None

    async def _run_meter(
        self, verb: str, settings: dict[str, str], *arguments: str, stdin: str = ""
    ) -> None:
        command = (*PYTHON_MODULE, "meter", verb, *arguments)
        log = self.home.logs / f"meter-{verb}.log"
        environment = service_environment(settings)
        await run_to_end(f"`python -m meter {verb}`", command, environment, log, stdin)

    def _postgres(self) -> Component:
        return Component(
            "postgres",
            tuple(self.database.command()),
            lambda: postgres.accepts(self.database),
            server_environment(),
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
            stop_timeout_s=POSTGRES_STOP_TIMEOUT_S,
        )

    def _redis(self) -> Component:
        return Component(
            "redis",
            tuple(self.redis.command()),
            lambda: redis_server.answers(self.redis),
            server_environment(),
        )

    def _simulator(self) -> Component:
        listen = f"{LOOPBACK}:{self.simulator_port}"
        bill = str(self.home.simulator / "bill.jsonl")
        arguments = ("tollkeeper.simulator", "--listen", listen, "--bill", bill)
        settings = {
            "SIMULATOR_KEY": self._simulator_key(),
            "SIMULATOR_BROADCAST_URL": f"{self.endpoints['api']}{BROADCAST_PATH}",
            "SIMULATOR_BROADCAST_TOKEN": _kept_secret(self.home.reports_token, "reports-"),
        }
        return Component(
            "simulator",
            (*PYTHON_MODULE, *arguments),
            _answers(f"{self.provider_base_url}/models"),
            simulator_environment(settings),
        )

    def _meter(self) -> Component:
        api = f"{LOOPBACK}:{self.settings.api_port}"
        settings = {
            "TOLLKEEPER_METER_LISTEN": api,
            "TOLLKEEPER_INGEST_LISTEN": f"unix:{self.home.run / 'ingest.sock'}",
            "TOLLKEEPER_PROVIDER_BASE_URL": self.provider_base_url,
            **self._operator(),
        }
        logs = {
            "TOLLKEEPER_ENVOY_ACCESS_LOG": str(self.home.envoy / "access.jsonl"),
            "TOLLKEEPER_ENVOY_ADMIN": f"unix:{self.home.run / 'envoy-admin.sock'}",
        }
        return self._service("meter", settings, _answers(f"http://{api}/readyz"), logs)

    def _authz(self) -> Component:
        health = self.home.run / "authz-health.sock"
        settings = {
            "TOLLKEEPER_REDIS_URL": self.redis.url,
            "TOLLKEEPER_AUTHZ_LISTEN": f"unix:{self.home.run / 'authz.sock'}",
            "TOLLKEEPER_AUTHZ_HEALTH_LISTEN": f"unix:{health}",
        }
        return self._service("authz", settings, _answers("http://authz/readyz", health))

    def _service(
        self,
        name: str,
        settings: dict[str, str],
        is_ready: Probe,
        defaults: dict[str, str] | None = None,
    ) -> Component:
        defaults = {**(defaults or {}), **self._reports()}
        environment = service_environment({**self._books(), **settings}, defaults)
        return Component(name, (*PYTHON_MODULE, name), is_ready, environment)

    def _envoy(self) -> Component:
        admin = self.home.run / "envoy-admin.sock"
        configuration, workers = self.home.envoy / "envoy.yaml", self.settings.envoy_workers
        return Component(
            "envoy",
            tuple(envoy_config.command(configuration, workers, binaries.envoy_binary())),
            _answers("http://envoy/ready", admin),
            server_environment(),
        )

    def _write_envoy_config(self) -> None:
        run = self.home.run
        addresses = envoy_config.EnvoyAddresses(
            listen=f"{self.settings.address}:{self.settings.port}",
            authz=f"unix:{run / 'authz.sock'}",
            ingest=f"unix:{run / 'ingest.sock'}",
            meter_api=f"{LOOPBACK}:{self.settings.api_port}",
            provider_base_url=self.provider_base_url,
            access_log=self.home.envoy / "access.jsonl",
            admin_socket=run / "envoy-admin.sock",
        )
        try:
            envoy_config.write(addresses, self.home.envoy / "envoy.yaml")
        except envoy_config.EnvoyConfigError as error:
            raise StackError(f"Envoy's configuration cannot be written: {error}.") from error

    def _books(self) -> dict[str, str]:
        """What everyone needs who reads or writes the books."""
        return {
            "TOLLKEEPER_DATABASE_URL": self.database.dsn(postgres.SERVICE_ROLE),
            "TOLLKEEPER_MASTER_KEY_FILE": str(self.home.master_key),
        }

    def _operator(self) -> dict[str, str]:
        given = self.settings.operator_token
        if given:
            return {"TOLLKEEPER_OPERATOR_TOKEN": given.get_secret_value()}
        return {"TOLLKEEPER_OPERATOR_TOKEN_FILE": str(self.home.operator_token)}

    def _simulator_key(self) -> str:
        return _kept_secret(self.home.simulator_key, "sk-or-simulator-")

    def _reports(self) -> dict[str, str]:
        """The simulator tells of each generation, as OpenRouter does where it is asked to."""
        if not self.simulator_port:
            return {}
        _kept_secret(self.home.reports_token, "reports-")
        return {
            "TOLLKEEPER_PROVIDER_REPORTS": "true",
            "TOLLKEEPER_PROVIDER_REPORTS_TOKEN_FILE": str(self.home.reports_token),
        }


def design(home: Home, settings: StackSettings) -> Topology:
    """The stack that these settings ask for.

    Raises StackError when a server's program is missing or root cannot drop its
    privileges.
    """
    data = home.postgres
    user = run_as(data, "INT")
    return Topology(
        home,
        settings,
        postgres.PostgresServer(binaries.postgres_binaries(), data, home.run / "pg", user),
        redis_server.RedisServer(binaries.redis_binary(), home.run / "redis.sock", home.redis),
        _simulator_port(home.simulator_port) if settings.has_simulator else None,
    )


def _simulator_port(path: Path) -> int:
    """The port of last time, so that bookmarks and scripts keep working."""
    try:
        kept = int(path.read_text())
    except (FileNotFoundError, ValueError):
        kept = None
    port = free_port_like(kept)
    write_private(path, f"{port}\n")
    return port


def _kept_secret(path: Path, prefix: str) -> str:
    """The secret in that file, made where there is none."""
    if not path.exists():
        write_private(path, f"{prefix}{secrets.token_hex(16)}\n")
    return path.read_text().strip()


def _answers(url: str, socket: Path | None = None) -> Probe:
    return lambda: answers_ok(url, socket)
