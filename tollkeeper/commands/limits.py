"""`tollkeeper limits`: limit rules, in addition to the limits of keys, users and plans."""

from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi, connect, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import (
    JsonOption,
    say,
    show_one,
    show_rows,
)

COLUMNS = (
    "id",
    "applies_to",
    "applies_id",
    "counted_per",
    "model_pattern",
    "requests_per_minute",
    "tokens_per_minute",
    "requests_per_day",
    "requests_per_month",
    "is_shadow",
)

app = ApiCommands(name="limits", help="Limit rules: for plans, models, everyone.")
RuleArgument = Annotated[str, typer.Argument(help="The rule's id.", show_default=False)]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Limit rules. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_limits(connect(None, None))


@app.command("list")
def list_limits(client: MeterApi, as_json: JsonOption = None) -> None:
    """List limit rules."""
    show_rows(client.get("/limits")["data"], COLUMNS, as_json, "There are no limit rules.")


@app.command("set")
def set_limit(
    client: MeterApi,
    rule: RuleArgument,
    plan: Annotated[str | None, typer.Option("--plan", help="For users of this plan.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="For this user.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="For this key.")] = None,
    counted_per: Annotated[
        str,
        typer.Option("--per", help="rule: all share the limit; user or key: each has its own."),
    ] = "rule",
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model id or pattern with *; by default all models."),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option("--requests-per-minute")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option("--tokens-per-minute")] = None,
    requests_per_day: Annotated[int | None, typer.Option("--requests-per-day", help="UTC.")] = None,
    requests_per_month: Annotated[
        int | None, typer.Option("--requests-per-month", help="UTC.")
    ] = None,
    is_shadow: Annotated[
        bool, typer.Option("--shadow", help="Count and report, but refuse no request.")
    ] = False,
    as_json: JsonOption = None,
) -> None:
    """Create or replace a limit rule; without --plan, --user or --key it is for everyone."""
    applies = {"plan": plan, "user": user, "key": key}
    named = [(kind, value) for kind, value in applies.items() if value is not None]
    if len(named) > 1:
        raise typer.BadParameter("give one of --plan, --user and --key")
    applies_to, applies_id = named[0] if named else ("everyone", None)
    terms = {
        "applies_to": applies_to,
        "applies_id": applies_id,
        "counted_per": counted_per,
        "model_pattern": model,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "requests_per_day": requests_per_day,
        "requests_per_month": requests_per_month,
        "is_shadow": is_shadow,
    }
    show_one(client.send("PUT", f"/limits/{segment(rule)}", terms), as_json)


@app.command("remove")
def remove_limit(client: MeterApi, rule: RuleArgument) -> None:
    """Remove a limit rule."""
    client.send("DELETE", f"/limits/{segment(rule)}")
    say(f"The limit rule {rule} is removed.")
