"""`tollkeeper coupons`: codes that give credit."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import JsonOption, LimitOption, show_one, show_rows

COLUMNS = ("id", "name", "amount", "redemptions", "max_redemptions", "expires_at", "ended_at")

app = ApiCommands(name="coupons", help="Codes that give credit.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("create")
def create_coupon(
    client: MeterApi,
    amount: Annotated[str, typer.Argument(help="Such as 10.00.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Name; users see it as the reason.")],
    redemptions: Annotated[
        int, typer.Option("--redemptions", help="How many accounts may redeem it.")
    ] = 1,
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", help="Such as 2027-01-31T00:00:00Z.")
    ] = None,
    credit_days: Annotated[
        int | None,
        typer.Option(
            "--credit-days",
            help="Days after redeeming for which the credit can be used; by default for ever.",
            show_default=False,
        ),
    ] = None,
    code: Annotated[
        str | None, typer.Option("--code", help="By default one that nobody can guess.")
    ] = None,
    plan: Annotated[
        list[str] | None,
        typer.Option(
            "--plan",
            help="Only users of this plan may redeem it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Make a coupon; its code is shown this once."""
    body: dict[str, Any] = {"name": name, "amount": amount, "max_redemptions": redemptions}
    given = {"expires_at": expires_at, "credit_days": credit_days, "code": code}
    if plan:
        body["plans"] = plan
    body |= {member: value for member, value in given.items() if value is not None}
    show_one(client.send("POST", "/coupons", body), as_json)


@app.command("list")
def list_coupons(client: MeterApi, limit: LimitOption = 50, as_json: JsonOption = None) -> None:
    """List coupons, newest first."""
    show_rows(client.rows("/coupons", limit), COLUMNS, as_json, "There are no coupons.")


@app.command("redeem")
def redeem_coupon(
    client: MeterApi,
    user: UserArgument,
    code: Annotated[str, typer.Argument(help="The coupon's code.", show_default=False)],
    as_json: JsonOption = None,
) -> None:
    """Redeem a code for a user, once; prints the credit and the balance."""
    path = f"/users/{segment(user)}/coupons"
    show_one(client.send("POST", path, {"code": code}), as_json)


@app.command("end")
def end_coupon(
    client: MeterApi,
    coupon: Annotated[str, typer.Argument(help="The coupon's id.", show_default=False)],
    as_json: JsonOption = None,
) -> None:
    """End a coupon; users who redeemed it keep the credit."""
    show_one(client.send("POST", f"/coupons/{segment(coupon)}/end"), as_json)
