"""The processes of the stack, their order, and their addresses."""

import asyncio
import secrets
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from meter.providers import openrouter
from tollkeeper.simulator.dialects import DIALECTS, OPENROUTER
from tollkeeper.stack.errors import StackError
from tollkeeper.stack.home import Home, write_private
from tollkeeper.stack.servers import binaries, demo, postgres, redis_server
from tollkeeper.stack.servers.environment import (
    server_environment,
    service_environment,
    simulator_environment,
)
from tollkeeper.stack.servers.envoy_server import EnvoyServer
from tollkeeper.stack.servers.instances import (
    AuthzInstance,
    Instances,
    MeterInstance,
    instances,
    kept_port,
)
from tollkeeper.stack.servers.ports import LOOPBACK
from tollkeeper.stack.servers.privileges import run_as
from tollkeeper.stack.settings import StackSettings
from tollkeeper.stack.supervision.children import STEP_TIMEOUT_S, run_to_end
from tollkeeper.stack.supervision.component import Component, Phase, Probe, Step
from tollkeeper.stack.supervision.priority import behind_others
from tollkeeper.stack.supervision.probes import answers_ok, http

POSTGRES_STOP_TIMEOUT_S = 30.0
# The meter settles what is queued: 20 s at most, after the API's 5 s and the stream's 2 s.
METER_STOP_TIMEOUT_S = 35.0
# Checks under way get 5 s, and what they leave behind another 5 s.
AUTHZ_STOP_TIMEOUT_S = 15.0
# Some migrations rewrite a long history, and a migration that is cut off starts again.
MIGRATION_TIMEOUT_S = 3600.0
CATALOGUE_TIMEOUT_S = 60.0
CATALOGUE_POLL_S = 0.1
BROADCAST_PATH = f"/api/v1/provider-reports/{openrouter.ID}"
BUY_PATH = "/api/v1/billing/buy"
STRIPE_WEBHOOK_PATH = "/api/v1/webhooks/stripe"
# -P: a folder named `redis` where the person stands must not be imported.
PYTHON_MODULE = (sys.executable, "-P", "-m")
# Reading large bodies must not keep the processor from checks of small requests.
BODIES_NICENESS = 5
BODIES_DATABASE_CONNECTIONS = "2"


@dataclass(frozen=True, slots=True)
class Topology:
    """The parts of one stack. Nothing is started here."""

    home: Home
    settings: StackSettings
    database: postgres.PostgresServer
    redis: redis_server.RedisServer
    instances: Instances
    simulator_port: int | None
    stripe_port: int | None = None
    # The ports of other providers that the simulator stands in for.
    dialect_ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def endpoints(self) -> dict[str, str]:
        """The addresses that people and tests use."""
        found = {
            "gateway": f"http://{LOOPBACK}:{self.settings.port}",
            "api": f"http://{LOOPBACK}:{self.settings.api_port}",
        }
        for meter in self.instances.meters[1:]:
            found[meter.name.replace("meter", "api")] = f"http://{meter.api}"
        if self.simulator_port:
            found["simulator"] = f"http://{LOOPBACK}:{self.simulator_port}"
        for dialect_id, port in self.dialect_ports.items():
            base_path = DIALECTS[dialect_id].base_path
            found[f"simulator/{dialect_id}"] = f"http://{LOOPBACK}:{port}{base_path}"
        if self.stripe_port:
            found["stripe"] = f"http://{LOOPBACK}:{self.stripe_port}"
        return found

    @property
    def provider_base_url(self) -> str:
        """The upstream, including `/api/v1` or the like."""
        if self.simulator_port:
            return f"{self.endpoints['simulator']}/api/v1"
        return self.settings.openrouter_base_url or openrouter.BASE_URL

    @property
    def envoy(self) -> EnvoyServer:
        """The Envoy in front of all instances."""
        return EnvoyServer(self.home, self.settings, self.instances, self.provider_base_url)

    def phases(self) -> tuple[Phase, ...]:
        """Everything to start, in order."""
        first: list[Component | Step] = [
            Component(
                "postgres",
                tuple(self.database.command()),
                lambda: postgres.accepts(self.database),
                server_environment(),
                stop_signal=signal.SIGINT,
                death_signal=signal.SIGINT,
                stop_timeout_s=POSTGRES_STOP_TIMEOUT_S,
            ),
            Component(
                "redis",
                tuple(self.redis.command()),
                lambda: redis_server.answers(self.redis),
                server_environment(),
            ),
        ]
        if self.simulator_port:
            listen = f"{LOOPBACK}:{self.simulator_port}"
            bill = str(self.home.simulator / "bill.jsonl")
            arguments = ["tollkeeper.simulator", "--listen", listen, "--bill", bill]
            for dialect_id, port in self.dialect_ports.items():
                arguments += ["--dialect", f"{dialect_id}={LOOPBACK}:{port}"]
            settings = {
                "SIMULATOR_KEY": self._simulator_key(),
                "SIMULATOR_BROADCAST_URL": f"{self.endpoints['api']}{BROADCAST_PATH}",
                "SIMULATOR_BROADCAST_TOKEN": _kept_secret(self.home.reports_token, "reports-"),
            }
            first.append(
                Component(
                    "simulator",
                    (*PYTHON_MODULE, *arguments),
                    _answers(f"{self.provider_base_url}/models"),
                    simulator_environment(settings),
                )
            )
        if self.stripe_port:
            first.append(self._stripe_simulator())
        return (
            (Step("folders", self._prepare),),
            tuple(first),
            (Step("database", self._migrate),),
            (Step("provider", self._seal_provider_key),),
            tuple(self._meter(one) for one in self.instances.meters),
            # authz reads the catalogue when it starts, so the catalogue must exist before.
            (Step("catalogue", self._await_catalogue),),
            (*(self._authz(one) for one in self.instances.authz), self._bodies()),
            (self.envoy.component(),),
        )

    def _stripe_simulator(self) -> Component:
        settings = {
            "STRIPE_SIMULATOR_SECRET_KEY": _kept_secret(self.home.stripe_key, "sk_test_"),
            "STRIPE_SIMULATOR_WEBHOOK_URL": f"{self.endpoints['gateway']}{STRIPE_WEBHOOK_PATH}",
            "STRIPE_SIMULATOR_WEBHOOK_SECRET": _kept_secret(
                self.home.stripe_webhook_secret, "whsec_"
            ),
        }
        arguments = ("tollkeeper.simulator.stripe", "--listen", f"{LOOPBACK}:{self.stripe_port}")
        return Component(
            "stripe",
            (*PYTHON_MODULE, *arguments),
            _answers(f"{self.endpoints['stripe']}/control/status"),
            simulator_environment(settings),
        )

    async def _prepare(self) -> None:
        await asyncio.to_thread(self.database.prepare)
        await asyncio.to_thread(self.redis.prepare)
        for socket in self.instances.sockets:
            socket.unlink(missing_ok=True)
        self.envoy.prepare()

    async def _migrate(self) -> None:
        await postgres.create_roles_and_database(self.database)
        owner = {"TOLLKEEPER_MIGRATION_DATABASE_URL": self.database.dsn(postgres.OWNER_ROLE)}
        await self._run_meter("migrate", owner, timeout_s=MIGRATION_TIMEOUT_S)

    async def _seal_provider_key(self) -> None:
        key = self.settings.openrouter_api_key
        text = key.get_secret_value() if key else self._simulator_key()
        await self._run_meter("set-provider-key", self._books(), openrouter.ID, stdin=text)

    async def _await_catalogue(self) -> None:
        """Wait for models. Models of an earlier run do: only a first start can fail here."""
        try:
            async with asyncio.timeout(CATALOGUE_TIMEOUT_S):
                while not await demo.find_models(self.endpoints["api"]):  # noqa: ASYNC110
                    await asyncio.sleep(CATALOGUE_POLL_S)
        except TimeoutError:
            raise StackError(
                f"The provider at {self.provider_base_url} has not given its list of models with "
                "prices, without which nothing can be priced; look at OPENROUTER_BASE_URL and the "
                f"network ({await self._catalogue_reason()})."
            ) from None

    async def _catalogue_reason(self) -> str:
        """Return why the meter has no catalogue, or where that is logged."""
        try:
            answer = await http("GET", f"{self.endpoints['api']}/readyz")
            found: Any = answer.json()
            return str(found["components"]["catalogue"]["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return f"the reason is in {self.home.logs / 'meter.log'}"

    async def _run_meter(
        self,
        verb: str,
        settings: dict[str, str],
        *arguments: str,
        stdin: str = "",
        timeout_s: float = STEP_TIMEOUT_S,
    ) -> None:
        command = (*PYTHON_MODULE, "meter", verb, *arguments)
        log = self.home.logs / f"meter-{verb}.log"
        environment = service_environment(settings)
        await run_to_end(f"`python -m meter {verb}`", command, environment, log, stdin, timeout_s)

    def _meter(self, meter: MeterInstance) -> Component:
        settings = {
            "TOLLKEEPER_REDIS_URL": self.redis.url,
            "TOLLKEEPER_METER_LISTEN": meter.api,
            "TOLLKEEPER_INGEST_LISTEN": f"unix:{meter.ingest}",
            "TOLLKEEPER_PROVIDER_BASE_URL": self.provider_base_url,
        }
        if self.stripe_port:
            settings |= {
                "TOLLKEEPER_STRIPE_KEY": _kept_secret(self.home.stripe_key, "sk_test_"),
                "TOLLKEEPER_STRIPE_WEBHOOK_SECRET": _kept_secret(
                    self.home.stripe_webhook_secret, "whsec_"
                ),
                "TOLLKEEPER_STRIPE_API_BASE": self.endpoints["stripe"],
                "TOLLKEEPER_PUBLIC_URL": self.endpoints["gateway"],
            }
        given = self.settings.operator_token
        if given:
            settings["TOLLKEEPER_OPERATOR_TOKEN"] = given.get_secret_value()
        else:
            settings["TOLLKEEPER_OPERATOR_TOKEN_FILE"] = str(self.home.operator_token)
        defaults = {
            "TOLLKEEPER_ENVOY_ACCESS_LOG": str(self.home.access_log),
            "TOLLKEEPER_ENVOY_ADMIN": f"unix:{self.home.envoy_admin}",
            # Servers of other dialects on this machine, the simulator among them.
            "TOLLKEEPER_PLAIN_HTTP_PROVIDERS": "127.0.0.0/8,::1/128",
            "TOLLKEEPER_ENVOY_CLUSTERS": str(self.home.clusters),
            # Our Envoy, which tells who called it.
            "TOLLKEEPER_TRUSTED_PROXIES": "127.0.0.1/32",
        }
        is_ready = _answers(f"http://{meter.api}/readyz")
        return self._service(meter.name, settings, defaults, is_ready, meter.api)

    def _authz(self, authz: AuthzInstance) -> Component:
        settings = {
            "TOLLKEEPER_REDIS_URL": self.redis.url,
            "TOLLKEEPER_AUTHZ_LISTEN": f"unix:{authz.listen}",
            "TOLLKEEPER_AUTHZ_HEALTH_LISTEN": f"unix:{authz.health}",
        }
        if self.stripe_port:
            settings["TOLLKEEPER_CREDIT_URL"] = f"{self.endpoints['gateway']}{BUY_PATH}"
        defaults = {"TOLLKEEPER_AUTHZ_EXPECTED_INSTANCES": str(len(self.instances.authz))}
        is_ready = _answers("http://authz/readyz", authz.health)
        return self._service(authz.name, settings, defaults, is_ready, f"unix:{authz.listen}")

    def _bodies(self) -> Component:
        """Return the authz that reads large bodies, behind all other work of this machine."""
        component = self._authz(self.instances.bodies)
        # Few requests have large bodies, so few connections do.
        environment = {
            **component.environment,
            "TOLLKEEPER_AUTHZ_DATABASE_CONNECTIONS": BODIES_DATABASE_CONNECTIONS,
        }
        command = (*behind_others(BODIES_NICENESS), *component.command)
        return replace(component, command=command, environment=environment)

    def _service(
        self,
        name: str,
        settings: dict[str, str],
        defaults: dict[str, str],
        is_ready: Probe,
        address: str,
    ) -> Component:
        """Return the component of an instance that Envoy reaches at `address`."""
        kind, _, _ = name.partition("-")
        # All services must name the same issuer, or they would not accept one another's JWTs.
        shared = {"TOLLKEEPER_ISSUER_URL": self.endpoints["gateway"]}
        if self.simulator_port:
            # The simulator reports each generation, as OpenRouter does when it is asked to.
            _kept_secret(self.home.reports_token, "reports-")
            shared["TOLLKEEPER_PROVIDER_REPORTS"] = "true"
            shared["TOLLKEEPER_PROVIDER_REPORTS_TOKEN_FILE"] = str(self.home.reports_token)
        return Component(
            name,
            (*PYTHON_MODULE, kind),
            is_ready,
            service_environment({**self._books(), **settings}, {**shared, **defaults}),
            stop_timeout_s=METER_STOP_TIMEOUT_S if kind == "meter" else AUTHZ_STOP_TIMEOUT_S,
            is_noticed=lambda: self.envoy.admin.routes_to(address),
        )

    def _books(self) -> dict[str, str]:
        """Return the settings of everything that reads or writes the books."""
        return {
            "TOLLKEEPER_DATABASE_URL": self.database.dsn(postgres.SERVICE_ROLE),
            "TOLLKEEPER_MASTER_KEY_FILE": str(self.home.master_key),
        }

    def _simulator_key(self) -> str:
        return _kept_secret(self.home.simulator_key, "sk-or-simulator-")


def design(home: Home, settings: StackSettings) -> Topology:
    """The stack that these settings ask for.

    Raises StackError when a server's program is missing or root cannot drop its
    privileges.
    """
    data = home.postgres
    user = run_as(data, "INT")
    others = [name for name in DIALECTS if name != OPENROUTER.id] if settings.has_simulator else []
    return Topology(
        home,
        settings,
        postgres.PostgresServer(binaries.postgres_binaries(), data, home.run / "pg", user),
        redis_server.RedisServer(binaries.redis_binary(), home.run / "redis.sock", home.redis),
        instances(home, settings.authz_instances, settings.meter_instances, settings.api_port),
        kept_port(home.simulator_port) if settings.has_simulator else None,
        kept_port(home.stripe_port) if settings.stripe_simulator else None,
        {name: kept_port(home.dialect_port(name)) for name in others},
    )


def _kept_secret(path: Path, prefix: str) -> str:
    """Return the secret in a file, which is made if it does not exist."""
    if not path.exists():
        write_private(path, f"{prefix}{secrets.token_hex(16)}\n")
    return path.read_text().strip()


def _answers(url: str, socket: Path | None = None) -> Probe:
    return lambda: answers_ok(url, socket)
