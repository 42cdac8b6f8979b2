"""Envoy in the stack: its configuration, and how it ends without cutting anybody off."""

from dataclasses import dataclass
from pathlib import Path

from tollkeeper import envoy_config
from tollkeeper.stack.errors import StackError
from tollkeeper.stack.home import Home
from tollkeeper.stack.servers import binaries
from tollkeeper.stack.servers.environment import server_environment
from tollkeeper.stack.servers.envoy_admin import EnvoyAdmin
from tollkeeper.stack.servers.instances import Instances
from tollkeeper.stack.settings import StackSettings
from tollkeeper.stack.supervision.component import Component, Drain
from tollkeeper.stack.supervision.probes import answers_ok


@dataclass(frozen=True, slots=True)
class EnvoyServer:
    """One Envoy before all instances of authz and the meter."""

    home: Home
    settings: StackSettings
    instances: Instances
    provider_base_url: str

    @property
    def admin(self) -> EnvoyAdmin:
        """The admin socket of the Envoy that is running."""
        return EnvoyAdmin(self.home.envoy_admin)

    def prepare(self) -> None:
        """Write the configuration. Raises StackError where an address cannot be used."""
        self.home.envoy_admin.unlink(missing_ok=True)
        authz, meters = self.instances.authz, self.instances.meters
        bodies = self.instances.bodies
        addresses = envoy_config.EnvoyAddresses(
            listen=f"{self.settings.address}:{self.settings.port}",
            authz=_listed([one.listen for one in authz]),
            ingest=_listed([one.ingest for one in meters]),
            meter_api=",".join(one.api for one in meters),
            provider_base_url=self.provider_base_url,
            access_log=self.home.access_log,
            admin_socket=self.home.envoy_admin,
            authz_health=_listed([one.health for one in authz]),
            authz_bodies=_listed([bodies.listen]),
            authz_bodies_health=_listed([bodies.health]),
            access_logs=self.settings.access_logs,
            clusters_file=self.home.clusters,
            cors_origins=self.settings.cors_origins,
        )
        try:
            envoy_config.write(addresses, self._configuration)
        except envoy_config.EnvoyConfigError as error:
            raise StackError(f"Envoy's configuration cannot be written: {error}.") from error

    def component(self) -> Component:
        """Return the command that the supervisor runs."""
        workers, binary = self.settings.envoy_workers, binaries.envoy_binary()
        return Component(
            "envoy",
            tuple(envoy_config.command(self._configuration, workers, binary)),
            lambda: answers_ok("http://envoy/ready", self.home.envoy_admin),
            server_environment(),
            drain=self._drain_of(self.admin),
            step_aside=self._step_aside,
        )

    @property
    def _configuration(self) -> Path:
        return self.home.envoy / "envoy.yaml"

    def _step_aside(self) -> Drain:
        """Leave the admin address to a successor; the port can be listened on twice."""
        aside = self.home.envoy_admin.with_name("envoy-admin-old.sock")
        try:
            self.home.envoy_admin.replace(aside)
        except FileNotFoundError:
            # Gone with its Envoy, or never made: then the drain will find nobody either.
            aside.unlink(missing_ok=True)
        return self._drain_of(EnvoyAdmin(aside))

    def _drain_of(self, admin: EnvoyAdmin) -> Drain:
        async def drain() -> None:
            await admin.drain_if_there(self.settings.envoy_drain_s)

        return drain


def _listed(sockets: list[Path]) -> str:
    return ",".join(f"unix:{socket}" for socket in sockets)
