"""`tollkeeper up`, `down`, `restart` and `status`."""

import asyncio
import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tollkeeper.errors import CommandError
from tollkeeper.stack.home import locate
from tollkeeper.stack.inspection import Inspection, inspect
from tollkeeper.stack.settings import StackSettings, load_settings
from tollkeeper.stack.supervision.control import ask_restart
from tollkeeper.stack.supervision.detach import bring_down, start_detached
from tollkeeper.stack.supervision.report import Reporter
from tollkeeper.tables import HomeOption

PortOption = Annotated[
    int | None, typer.Option("--port", help="Envoy's port (TOLLKEEPER_PORT, 8080).")
]
ApiPortOption = Annotated[
    int | None, typer.Option("--api-port", help="The meter API's port (TOLLKEEPER_API_PORT, 8081).")
]
AuthzOption = Annotated[
    int | None, typer.Option("--authz", help="How many authz (TOLLKEEPER_AUTHZ_INSTANCES, 1).")
]
MeterOption = Annotated[
    int | None, typer.Option("--meter", help="How many meters (TOLLKEEPER_METER_INSTANCES, 1).")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(up)
    app.command()(down)
    app.command()(restart)
    app.command()(status)


def up(
    detach: Annotated[bool, typer.Option(help="Return when everything is up.")] = False,
    home: HomeOption = None,
    port: PortOption = None,
    api_port: ApiPortOption = None,
    authz: AuthzOption = None,
    meter: MeterOption = None,
    report_to: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the whole system on this machine and keep it running until Ctrl-C."""
    settings = load_settings(
        home=home, port=port, api_port=api_port, authz_instances=authz, meter_instances=meter
    )
    settings.demand_upstream()
    if detach:
        start_detached(settings, list(_options(settings)))
        return
    # The servers' clients take a quarter of a second to import; `status` does without them.
    from tollkeeper.stack import launch

    reporter = Reporter(report_to)
    try:
        launch.run(settings, reporter)
    except CommandError as error:
        if report_to is None:
            raise
        reporter.failed(str(error))
        raise typer.Exit(1) from None


def down(home: HomeOption = None) -> None:
    """End the system that runs on this machine, and wait until it is gone."""
    was_running = bring_down(load_settings(home=home))
    typer.echo("stopped" if was_running else "nothing was running")


def restart(
    component: Annotated[str, typer.Argument(help="Such as authz (all of them) or authz-2.")],
    home: HomeOption = None,
) -> None:
    """Restart a component of the running system with grace, one instance after the other."""
    for line in ask_restart(locate(load_settings(home=home).home), component):
        typer.echo(line)


def status(
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what runs and whether it is healthy: exit code 0 healthy, 1 not, 3 not running."""
    found = asyncio.run(inspect(load_settings(home=home)))
    if as_json or not sys.stdout.isatty():
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show(found, Console())
    raise typer.Exit(found.exit_code)


def _options(settings: StackSettings) -> Iterator[str]:
    """The same choices for the detached supervisor; what is secret stays in the environment."""
    yield from ("--home", str(settings.home.absolute()))
    yield from ("--port", str(settings.port))
    yield from ("--api-port", str(settings.api_port))
    yield from ("--authz", str(settings.authz_instances))
    yield from ("--meter", str(settings.meter_instances))


def _show(found: Inspection, console: Console) -> None:
    if found.status is None:
        console.print("Tollkeeper is not running; `make up` starts it.")
        return
    table = Table("component", "state", "pid", "uptime", "restarts", "health")
    for one in found.status.components:
        uptime_s = one.uptime_s(found.seen_at)
        table.add_row(
            *(
                (
                    one.component,
                    str(one.state),
                    str(one.pid or "-"),
                    "-" if uptime_s is None else str(timedelta(seconds=int(uptime_s))),
                    str(one.restarts),
                    "[green]healthy[/]" if one.is_healthy else "[red]unhealthy[/]",
                )
            )
        )
    console.print(table)
    for name, url in found.status.endpoints.items():
        console.print(f"{name:<10} {url}")
    if found.holds is None:
        console.print("Holds: the meter API does not say")
        return
    counts = ", ".join(f"{count} {name}" for name, count in found.holds.items())
    console.print(f"Holds: {counts}")
