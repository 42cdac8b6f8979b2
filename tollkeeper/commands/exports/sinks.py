"""`tollkeeper sinks`: systems that usage is sent to."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.errors import CommandError
from tollkeeper.tables import JsonOption, LimitOption, say, show_one, show_rows, show_verdict

COLUMNS = ("id", "kind", "state", "url", "sent", "behind", "lag_seconds", "parked", "error")
PARKED_COLUMNS = ("position", "parked_at", "user_id", "error", "is_replayed")

app = ApiCommands(name="sinks", help="Systems that usage is sent to.", no_args_is_help=True)
SinkArgument = Annotated[
    str, typer.Argument(help="The sink's id, such as lago.", show_default=False)
]


class SinkKind(enum.StrEnum):
    """The kinds of sinks."""

    LAGO = "lago"
    CLOUD_EVENTS = "cloudevents"


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("put")
def put_sink(
    client: MeterApi,
    sink: SinkArgument,
    kind: Annotated[SinkKind, typer.Argument(show_default=False)],
    url: Annotated[
        str,
        typer.Argument(
            help="Lago's base address, or where CloudEvents are posted.", show_default=False
        ),
    ],
    code: Annotated[
        str, typer.Option("--code", help="Lago's billable metric, or the type of CloudEvents.")
    ] = "llm_usage",
    source: Annotated[
        str | None, typer.Option("--source", help="The source of CloudEvents.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option("--plan", help="Lago's plan under which users get a subscription."),
    ] = None,
    credential_file: Annotated[
        Path | None,
        typer.Option("--credential-file", help="File with the API key; else the stored one stays."),
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Send all usage that is kept, once.")
    ] = False,
    as_json: JsonOption = None,
) -> None:
    """Make a sink, or change its settings."""
    body: dict[str, Any] = {
        "kind": kind.value,
        "url": url,
        "event_code": code,
        "source": source,
        "plan_code": plan,
        "from_beginning": from_beginning,
    }
    if credential_file is not None:
        try:
            body["credential"] = credential_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise CommandError(f"The file {credential_file} cannot be read.") from None
    show_one(client.send("PUT", f"/sinks/{segment(sink)}", body), as_json)


@app.command("list")
def list_sinks(client: MeterApi, as_json: JsonOption = None) -> None:
    """List sinks with how far each is."""
    show_rows(client.get("/sinks")["data"], COLUMNS, as_json, "There are no sinks.")


@app.command("show")
def show_sink(client: MeterApi, sink: SinkArgument, as_json: JsonOption = None) -> None:
    """Show a sink."""
    show_one(client.get(f"/sinks/{segment(sink)}"), as_json)


@app.command("test")
def check_sink(client: MeterApi, sink: SinkArgument, as_json: JsonOption = None) -> None:
    """Ask a sink whether it would take usage; sends nothing that is billed."""
    found = client.send("POST", f"/sinks/{segment(sink)}/test", timeout_s=90.0)
    show_verdict(found, found, as_json)


@app.command("pause")
def pause_sink(client: MeterApi, sink: SinkArgument, as_json: JsonOption = None) -> None:
    """Send nothing until the sink is resumed; it keeps its position."""
    show_one(client.send("POST", f"/sinks/{segment(sink)}/pause"), as_json)


@app.command("resume")
def resume_sink(client: MeterApi, sink: SinkArgument, as_json: JsonOption = None) -> None:
    """Send again, from where the sink was paused."""
    show_one(client.send("POST", f"/sinks/{segment(sink)}/resume"), as_json)


@app.command("end")
def end_sink(client: MeterApi, sink: SinkArgument, as_json: JsonOption = None) -> None:
    """Send nothing any more, and delete the credential."""
    show_one(client.send("POST", f"/sinks/{segment(sink)}/end"), as_json)


@app.command("parked")
def list_parked(
    client: MeterApi, sink: SinkArgument, limit: LimitOption = 50, as_json: JsonOption = None
) -> None:
    """List the events that a sink refuses, oldest first."""
    rows = client.rows(f"/sinks/{segment(sink)}/parked", limit)
    show_rows(rows, PARKED_COLUMNS, as_json, "No event is parked.")


@app.command("replay")
def replay_parked(
    client: MeterApi,
    sink: SinkArgument,
    position: Annotated[
        int | None, typer.Argument(help="Of one event; by default all.", show_default=False)
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Send parked events again."""
    body = {} if position is None else {"position": position}
    show_one(client.send("POST", f"/sinks/{segment(sink)}/parked/replay", body), as_json)


@app.command("discard")
def discard_parked(
    client: MeterApi,
    sink: SinkArgument,
    position: Annotated[int, typer.Argument(help="Of the event.", show_default=False)],
) -> None:
    """Discard an event that a sink refuses; the sink never gets it."""
    client.send("DELETE", f"/sinks/{segment(sink)}/parked/{position}")
    say("Discarded.")
