"""`tollkeeper health`: whether one component is ready, by exit code. For health checks."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic_settings import BaseSettings, SettingsConfigDict

from meter.errors import InvalidRequest
from meter.listening import parse_address
from tollkeeper.errors import CommandError
from tollkeeper.stack.supervision.probes import answers_ok


class HealthSettings(BaseSettings):
    """The addresses at which the components answer health checks."""

    model_config = SettingsConfigDict(env_prefix="TOLLKEEPER_", env_ignore_empty=True)

    meter_listen: str = "127.0.0.1:8081"
    authz_health_listen: str | None = None
    envoy_admin_socket: Path = Path("/tmp/tollkeeper-envoy-admin.sock")


class Checked(StrEnum):
    """The components that can be asked."""

    METER = "meter"
    AUTHZ = "authz"
    ENVOY = "envoy"


@dataclass(frozen=True, slots=True)
class Question:
    """A URL to ask, over a Unix socket when there is one."""

    url: str
    socket: Path | None


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("health")(check_health)


def check_health(
    component: Annotated[Checked, typer.Argument(help="The component to ask.", show_default=False)],
) -> None:
    """Ask a component on this machine whether it is ready: exit code 0 ready, 1 not."""
    question = question_for(component, HealthSettings())
    if not asyncio.run(answers_ok(question.url, question.socket)):
        raise CommandError(f"{component} is not ready.")
    typer.echo("ready")


def question_for(component: Checked, settings: HealthSettings) -> Question:
    """Return the question for a component. Raises CommandError if its address is not set."""
    if component is Checked.ENVOY:
        return Question("http://envoy/ready", settings.envoy_admin_socket)
    listens: Mapping[Checked, str | None] = {
        Checked.METER: settings.meter_listen,
        Checked.AUTHZ: settings.authz_health_listen,
    }
    listen = listens[component]
    if not listen:
        raise CommandError("TOLLKEEPER_AUTHZ_HEALTH_LISTEN is not set.")
    try:
        address = parse_address(listen)
    except InvalidRequest as error:
        raise CommandError(f"{error}.") from None
    return Question(f"{address.base_url}/readyz", address.path)
