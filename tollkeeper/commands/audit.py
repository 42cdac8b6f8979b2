"""`tollkeeper audit`: the actions of administrators and users."""

from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi
from tollkeeper.commands.api_commands import with_client
from tollkeeper.tables import JsonOption, LimitOption, show_rows

COLUMNS = ("at", "actor", "action", "subject", "user_id", "detail")


def register(root: typer.Typer) -> None:
    """Add the command to the application."""
    root.command("audit")(with_client(list_audit))


def list_audit(
    client: MeterApi,
    user: Annotated[
        str | None, typer.Option("--user", help="Only entries about this user.")
    ] = None,
    action: Annotated[
        str | None,
        typer.Option("--action", help="Only actions that begin so, such as key. or user."),
    ] = None,
    actor: Annotated[
        str | None, typer.Option("--actor", help="Only this actor, such as operator:operator.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = None,
) -> None:
    """Show the audit log, newest first."""
    wanted = {"user": user, "action": action, "actor": actor}
    rows = client.rows("/audit-log", limit, **wanted)
    show_rows(rows, COLUMNS, as_json, "There are no audit entries.")
