"""`tollkeeper payments`: selling credit through Stripe."""

import enum
import uuid
from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, NoAnswer, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.ledger import VERIFICATION_TIMEOUT_S
from tollkeeper.commands.users import UserArgument
from tollkeeper.errors import CommandError
from tollkeeper.tables import JsonOption, LimitOption, say, show_one, show_rows, show_verdict

COLUMNS = ("paid_at", "id", "user_id", "paid", "credited", "reversed", "is_live")
PURCHASE_COLUMNS = ("created_at", "id", "user_id", "kind", "amount", "state", "reason")
INVOICE_COLUMNS = ("created_at", "id", "number", "status", "total", "tax", "paid", "page_url")
COMPARISON_COLUMNS = ("day", "is_live", "ok", "difference_count", "not_ours", "compared_at")
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
    invoices: Annotated[
        bool | None,
        typer.Option("--invoices/--no-invoices", help="Have Stripe make invoices of purchases."),
    ] = None,
    credit_days: Annotated[
        int | None,
        typer.Option("--credit-days", help="Bought credit expires so many days later; 0: never."),
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
        "makes_invoices": invoices,
        "credit_days": credit_days,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if changes:
        body = {name: terms[name] for name in given} | changes
        body["credit_days"] = body["credit_days"] or None
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


@app.command("portal")
def open_portal(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """Open a user's pages at Stripe (cards, invoices); send the address to the user only."""
    show_one(client.send("POST", f"/users/{segment(user)}/portal"), as_json)


@app.command("invoices")
def list_invoices(
    client: MeterApi, user: UserArgument, limit: LimitOption = 50, as_json: JsonOption = None
) -> None:
    """List a user's invoices as Stripe has them, newest first."""
    rows = client.rows(f"/users/{segment(user)}/invoices", limit)
    show_rows(rows, INVOICE_COLUMNS, as_json, "There are no invoices.")


@app.command("purchases")
def list_purchases(
    client: MeterApi,
    user: Annotated[str | None, typer.Option("--user", help="Only of this user.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = None,
) -> None:
    """List purchases, also those that were never paid, newest first."""
    rows = client.rows("/purchases", limit, user_id=user)
    show_rows(rows, PURCHASE_COLUMNS, as_json, "There are no purchases.")


@app.command("auto-top-up")
def set_auto_top_up(
    client: MeterApi,
    user: UserArgument,
    threshold: Annotated[
        str | None, typer.Option("--threshold", help="Charge below this credit, such as 5.00.")
    ] = None,
    amount: Annotated[
        str | None, typer.Option("--amount", help="Credit to buy each time, such as 25.00.")
    ] = None,
    monthly_ceiling: Annotated[
        str | None, typer.Option("--monthly-ceiling", help="The most in a month, such as 200.00.")
    ] = None,
    is_off: Annotated[bool, typer.Option("--off", help="Charge the card no more.")] = False,
    as_json: JsonOption = None,
) -> None:
    """Show a user's automatic top-ups, set them, which ends a pause, or switch them off."""
    path = f"/users/{segment(user)}/auto-top-up"
    given = {"threshold": threshold, "amount": amount, "monthly_ceiling": monthly_ceiling}
    named = [name for name, value in given.items() if value is not None]
    if is_off and named:
        raise CommandError("--off goes with no amount; leave the amounts out.")
    if is_off:
        client.send("DELETE", path)
        say(f"The card of {user} is charged no more.")
        return
    if not named:
        show_one(client.get(path), as_json)
        return
    if len(named) < len(given):
        raise CommandError("Give --threshold, --amount and --monthly-ceiling together.")
    show_one(client.send("PUT", path, given), as_json)


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


@app.command("compare")
def compare_day(
    client: MeterApi,
    day: Annotated[str, typer.Argument(help="A day (UTC), such as 2026-11-29.")],
    as_json: JsonOption = None,
) -> None:
    """Compare a day with Stripe's balance, as each night does; exit code 1 for differences."""
    body = {"day": day}
    found = client.send("POST", "/stripe-comparisons", body, timeout_s=VERIFICATION_TIMEOUT_S)
    lines = {
        "day": found["day"],
        "comparison": "the books agree" if found["ok"] else "THE BOOKS DIFFER",
        **{
            one["kind"]: f"{one['stripe']} at Stripe ({one['stripe_count']}), "
            f"{one['booked']} booked ({one['booked_count']})"
            for one in found["kinds"]
        },
        **{f"fees in {one['currency']}": one["amount"] for one in found["fees"]},
        **{f"difference: {one['cause']}": one["sentence"] for one in found["differences"]},
    }
    show_verdict(found, lines, as_json)


@app.command("comparisons")
def list_comparisons(client: MeterApi, limit: LimitOption = 31, as_json: JsonOption = None) -> None:
    """List comparisons with Stripe's balance, latest day first."""
    rows = client.rows("/stripe-comparisons", limit)
    show_rows(rows, COMPARISON_COLUMNS, as_json, "No day was compared yet.")


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
