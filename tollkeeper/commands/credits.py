"""`tollkeeper credits`: show, give and take back a user's credit."""

import uuid
from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi, NoAnswer, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import JsonOption, LimitOption, say, show_one, show_rows

LOT_COLUMNS = ("expires_at", "remaining", "amount", "granted_at", "reason")
WRITE_OFF_COLUMNS = ("at", "user_id", "amount", "posting_id")

app = ApiCommands(name="credits", help="Credit of users, in US dollars.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("show")
def show_credits(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """Show a user's balance, holds and available credit."""
    show_one(client.get(f"/users/{segment(user)}/credits"), as_json)


@app.command("lots")
def list_lots(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """List a user's credit that expires, in the order in which it is spent."""
    found = client.get(f"/users/{segment(user)}/credits/lots")
    show_rows(found["data"], LOT_COLUMNS, as_json, "No credit of this user expires.")


# Without this setting a negative amount would be read as an option.
@app.command("add", context_settings={"ignore_unknown_options": True})
def add_credits(
    client: MeterApi,
    user: UserArgument,
    amount: Annotated[
        str, typer.Argument(help="Such as 5.00, or -1.25 to take credit back.", show_default=False)
    ],
    reason: Annotated[str, typer.Option("--reason", help="Reason; it is stored in the ledger.")],
    expires_at: Annotated[
        str | None,
        typer.Option(
            "--expires-at",
            help="Such as 2027-01-31T00:00:00Z; by default the credit never expires.",
            show_default=False,
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="Commands with the same key post only once."),
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Give credit, or take it back with a negative amount."""
    key = idempotency_key or uuid.uuid4().hex
    body = {"amount": amount, "reason": reason}
    if expires_at is not None:
        body["expires_at"] = expires_at
    path = f"/users/{segment(user)}/credits"
    try:
        posted = client.send("POST", path, body, {"Idempotency-Key": key})
    except NoAnswer:
        say(f"To repeat this safely, add --idempotency-key {key}")
        raise
    show_one(posted, as_json)


@app.command("max-debt")
def set_max_debt(
    client: MeterApi,
    user: UserArgument,
    amount: Annotated[
        str | None,
        typer.Argument(help="Such as 1.00; without it, show the limit.", show_default=False),
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Show or set how far a user may stay below zero; the house bears what is beyond."""
    path = f"/users/{segment(user)}/max-debt"
    found = client.get(path) if amount is None else client.send("PUT", path, {"max_debt": amount})
    show_one(found, as_json)


@app.command("write-offs")
def list_write_offs(client: MeterApi, limit: LimitOption = 50, as_json: JsonOption = None) -> None:
    """List the debt of users that the house bore."""
    rows = client.rows("/write-offs", limit)
    show_rows(rows, WRITE_OFF_COLUMNS, as_json, "No debt was written off.")
