"""`tollkeeper up`, `down`, `restart` and `status`."""

import asyncio
import json
import sys
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tollkeeper.errors import CommandError
from tollkeeper.stack.home import locate
from tollkeeper.stack.inspection import Inspection, inspect
from tollkeeper.stack.settings import load_settings
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
    int | None,
    typer.Option("--authz", help="Number of authz processes (TOLLKEEPER_AUTHZ_INSTANCES, 1)."),
]
MeterOption = Annotated[
    int | None,
    typer.Option("--meter", help="Number of meter processes (TOLLKEEPER_METER_INSTANCES, 1)."),
]


# By the mode of selling that the API names.
SELLING = {
    "test": "sold in test mode, no money moves",
    "going_live": "not sold yet; `tollkeeper billing go-live` has not passed",
    "live": "sold for real money",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(up)
    app.command()(down)
    app.command()(restart)
    app.command()(status)


def up(
    detach: Annotated[
        bool, typer.Option(help="Run in the background; return when all is up.")
    ] = False,
    home: HomeOption = None,
    port: PortOption = None,
    api_port: ApiPortOption = None,
    authz: AuthzOption = None,
    meter: MeterOption = None,
    sell: Annotated[
        bool | None,
        typer.Option(
            "--sell",
            help="Sell credit through a simulator of Stripe (TOLLKEEPER_STRIPE_SIMULATOR).",
        ),
    ] = None,
    report_to: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the whole system on this machine and keep it running until Ctrl-C.

    With --detach, it runs in the background until `tollkeeper down`.
    """
    settings = load_settings(
        home=home,
        port=port,
        api_port=api_port,
        authz_instances=authz,
        meter_instances=meter,
        stripe_simulator=sell,
    )
    settings.require_upstream()
    if detach:
        # The supervisor gets the same choices; secrets stay in the environment.
        options = {
            "--home": settings.home.absolute(),
            "--port": settings.port,
            "--api-port": settings.api_port,
            "--authz": settings.authz_instances,
            "--meter": settings.meter_instances,
        }
        words = [str(word) for option in options.items() for word in option]
        start_detached(settings, words + (["--sell"] if settings.stripe_simulator else []))
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
    """Stop the system that runs on this machine, and wait until it has ended."""
    was_running = bring_down(load_settings(home=home))
    typer.echo("stopped" if was_running else "nothing was running")


def restart(
    component: Annotated[
        str, typer.Argument(help="Component: authz for all of them, authz-2 for one.")
    ],
    home: HomeOption = None,
) -> None:
    """Restart a component without breaking requests, one instance after the other."""
    for line in ask_restart(locate(load_settings(home=home).home), component):
        typer.echo(line)


def status(
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what runs and whether it is healthy: exit code 0 healthy, 1 not, 3 not running."""
    found = asyncio.run(inspect(load_settings(home=home)))
    if as_json or not sys.stdout.isatty():
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show(found, Console())
    raise typer.Exit(found.exit_code)


def _show(found: Inspection, console: Console) -> None:
    if found.status is None:
        console.print("Tollkeeper is not running; `make up` starts it.")
        return
    table = Table("component", "state", "pid", "uptime", "restarts", "health")
    for one in found.status.components:
        uptime_s = one.uptime_s(found.seen_at)
        table.add_row(
            one.component,
            str(one.state),
            str(one.pid or "-"),
            "-" if uptime_s is None else str(timedelta(seconds=int(uptime_s))),
            str(one.restarts),
            "[green]healthy[/]" if one.is_healthy else "[red]unhealthy[/]",
        )
    console.print(table)
    for name, url in found.status.endpoints.items():
        console.print(f"{name:<10} {url}")
    console.print(f"Credit: {SELLING.get(found.selling or '', 'not sold')}")
    for problem in found.problems:
        console.print(f"[red]{escape(problem)}[/]", soft_wrap=True)
    if found.holds is None:
        console.print("Holds: unknown, since the meter API does not answer")
        return
    counts = ", ".join(f"{count} {name}" for name, count in found.holds.items())
    console.print(f"Holds: {counts}")
