"""`tollkeeper audit`: the actions of administrators and users."""

from typing import Annotated

import typer

from tollkeeper.api_client import connect
from tollkeeper.tables import ApiOption, HomeOption, JsonOption, LimitOption, show_rows

COLUMNS = ("at", "actor", "action", "subject", "user_id", "detail")


def register(root: typer.Typer) -> None:
    """Add the command to the application."""
    root.command("audit")(list_audit)


def list_audit(
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
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Show the audit log, newest first."""
    wanted = {"user": user, "action": action, "actor": actor}
    rows = connect(api, home).rows("/audit-log", limit, **wanted)
    show_rows(rows, COLUMNS, as_json, "There are no audit entries.")
