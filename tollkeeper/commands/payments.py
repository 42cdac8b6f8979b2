"""`tollkeeper payments`: selling credit through Stripe."""

import enum
import uuid
from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, NoAnswer, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import JsonOption, LimitOption, say, show_one, show_rows

COLUMNS = ("paid_at", "id", "user_id", "paid", "credited", "reversed", "is_live")
EVENT_COLUMNS = ("received_at", "id", "type", "object_id", "source", "state", "attempts", "error")

app = ApiCommands(name="payments", help="Credit that is sold through Stripe.", no_args_is_help=True)
PaymentArgument = Annotated[
    str, typer.Argument(help="The payment's id, such as pi_3Q0.", show_default=False)
]


class EventState(enum.StrEnum):
    """The states of an event of Stripe."""

    WAITING = "waiting"
    DONE = "done"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"
    PARKED = "parked"


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("terms")
def set_terms(
    client: MeterApi,
    least: Annotated[
        str | None, typer.Option("--least", help="Least amount sold at once, such as 5.00.")
    ] = None,
    most: Annotated[
        str | None, typer.Option("--most", help="Most amount sold at once, such as 500.00.")
    ] = None,
    tax: Annotated[
        bool | None, typer.Option("--tax/--no-tax", help="Have Stripe add tax to the amount.")
    ] = None,
    promotion_codes: Annotated[
        bool | None,
        typer.Option("--promotion-codes/--no-promotion-codes", help="Of Stripe's own coupons."),
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Show or set the terms under which credit is sold; what is left out stays."""
    terms = client.get("/selling")
    given = {
        "least": least,
        "most": most,
        "is_taxed": tax,
        "takes_promotion_codes": promotion_codes,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if changes:
        body = {name: terms[name] for name in given} | changes
        terms = client.send("PUT", "/selling", body)
    show_one(terms, as_json)


@app.command("checkout")
def open_checkout(
    client: MeterApi,
    user: UserArgument,
    amount: Annotated[str, typer.Argument(help="Such as 25.00.", show_default=False)],
    save_card: Annotated[
        bool, typer.Option("--save-card", help="Keep the card for automatic top-ups.")
    ] = False,
    as_json: JsonOption = None,
) -> None:
    """Open a purchase for a user; prints the page at Stripe on which it is paid."""
    body = {"amount": amount, "save_card": save_card}
    show_one(client.send("POST", f"/users/{segment(user)}/checkout", body), as_json)


@app.command("list")
def list_payments(
    client: MeterApi,
    user: Annotated[str | None, typer.Option("--user", help="Only of this user.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = None,
) -> None:
    """List payments that became credit, newest first."""
    rows = client.rows("/payments", limit, user_id=user)
    show_rows(rows, COLUMNS, as_json, "There are no payments.")


@app.command("show")
def show_payment(client: MeterApi, payment: PaymentArgument, as_json: JsonOption = None) -> None:
    """Show a payment with the refunds and disputes that took credit of it back."""
    show_one(client.get(f"/payments/{segment(payment)}"), as_json)


@app.command("refund")
def refund_payment(
    client: MeterApi,
    payment: PaymentArgument,
    amount: Annotated[
        str | None,
        typer.Option("--amount", help="Such as 5.00; by default all that is left."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="Commands with the same key refund only once."),
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Refund a payment at Stripe, and take its credit back; the balance may go below zero."""
    key = idempotency_key or uuid.uuid4().hex
    body: dict[str, Any] = {} if amount is None else {"amount": amount}
    path = f"/payments/{segment(payment)}/refunds"
    try:
        refunded = client.send("POST", path, body, {"Idempotency-Key": key})
    except NoAnswer:
        say(f"To repeat this safely, add --idempotency-key {key}")
        raise
    show_one(refunded, as_json)


@app.command("events")
def list_events(
    client: MeterApi,
    state: Annotated[
        EventState | None, typer.Option("--state", help="Only events in this state.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = None,
) -> None:
    """List events of Stripe, newest first."""
    rows = client.rows("/stripe-events", limit, state=state and state.value)
    show_rows(rows, EVENT_COLUMNS, as_json, "There are no events.")


@app.command("replay")
def replay_event(
    client: MeterApi,
    event: Annotated[str, typer.Argument(help="The event's id.", show_default=False)],
    as_json: JsonOption = None,
) -> None:
    """Follow an event of Stripe once more; nothing is posted twice."""
    show_one(client.send("POST", f"/stripe-events/{segment(event)}/replay"), as_json)
