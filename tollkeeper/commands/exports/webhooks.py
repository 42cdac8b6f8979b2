"""`tollkeeper webhooks`: where users are told of events."""

import enum
from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import JsonOption, LimitOption, say, show_one, show_rows

COLUMNS = ("id", "url", "events", "low_balance", "budget_percent", "waiting", "failures", "error")
MESSAGE_COLUMNS = ("created_at", "id", "type", "state", "attempts", "attempted_at", "error")

app = ApiCommands(name="webhooks", help="Where users are told of events.", no_args_is_help=True)
WebhookArgument = Annotated[
    str, typer.Argument(help="The webhook's id (wh_...).", show_default=False)
]


class EventType(enum.StrEnum):
    """The events that a webhook may want."""

    BALANCE_LOW = "balance.low"
    BUDGET_REACHED = "budget.reached"
    KEY_REVOKED = "key.revoked"
    PAYMENT_FAILED = "payment.failed"


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("create")
def create_webhook(
    client: MeterApi,
    user: UserArgument,
    url: Annotated[str, typer.Argument(help="Begins with https://.", show_default=False)],
    events: Annotated[
        list[EventType] | None,
        typer.Option("--event", help="To be told of; repeat for several. Default: all that apply."),
    ] = None,
    low_balance: Annotated[
        str | None, typer.Option("--low-balance", help="For balance.low, such as 5.00.")
    ] = None,
    budget_percent: Annotated[
        int, typer.Option("--budget-percent", help="Of a key's budget, for budget.reached.")
    ] = 90,
    as_json: JsonOption = None,
) -> None:
    """Make a webhook for a user; prints the secret, once."""
    wanted = [
        one for one in EventType if one is not EventType.BALANCE_LOW or low_balance is not None
    ]
    body = {
        "url": url,
        "events": [one.value for one in events or wanted],
        "low_balance": low_balance,
        "budget_percent": budget_percent,
    }
    show_one(client.send("POST", f"/users/{segment(user)}/webhooks", body), as_json)


@app.command("list")
def list_webhooks(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """List a user's webhooks."""
    rows = client.get(f"/users/{segment(user)}/webhooks")["data"]
    show_rows(rows, COLUMNS, as_json, "There are no webhooks.")


@app.command("test")
def check_webhook(
    client: MeterApi, user: UserArgument, webhook: WebhookArgument, as_json: JsonOption = None
) -> None:
    """Have a test message sent; `messages` shows what became of it."""
    path = f"/users/{segment(user)}/webhooks/{segment(webhook)}/test"
    show_one(client.send("POST", path), as_json)


@app.command("messages")
def list_messages(
    client: MeterApi,
    user: UserArgument,
    webhook: WebhookArgument,
    limit: LimitOption = 50,
    as_json: JsonOption = None,
) -> None:
    """List messages to a webhook, newest first, with why one was not taken."""
    rows = client.rows(f"/users/{segment(user)}/webhooks/{segment(webhook)}/messages", limit)
    show_rows(rows, MESSAGE_COLUMNS, as_json, "There are no messages.")


@app.command("resend")
def resend_message(
    client: MeterApi,
    user: UserArgument,
    webhook: WebhookArgument,
    message: Annotated[str, typer.Argument(help="The message's id (msg_...).", show_default=False)],
    as_json: JsonOption = None,
) -> None:
    """Send a message again; its id and body stay."""
    path = f"/users/{segment(user)}/webhooks/{segment(webhook)}/messages/{segment(message)}/resend"
    show_one(client.send("POST", path), as_json)


@app.command("delete")
def delete_webhook(client: MeterApi, user: UserArgument, webhook: WebhookArgument) -> None:
    """Send nothing any more, and delete the secret and all messages."""
    client.send("DELETE", f"/users/{segment(user)}/webhooks/{segment(webhook)}")
    say("Deleted.")
