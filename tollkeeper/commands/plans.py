"""`tollkeeper plans`: terms that users share, with their history."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import ApiCommands, OptionGroup
from tollkeeper.commands.identity.key_options import LIMITS, NO_LIMITS
from tollkeeper.commands.users import UserArgument
from tollkeeper.errors import CommandError
from tollkeeper.tables import JsonOption, LimitOption, show_one, show_rows

COLUMNS = (
    "id",
    "version",
    "name",
    "markup_bps",
    "own_key_fee_bps",
    "price",
    *LIMITS,
    "key_limits",
    "max_keys",
    "retired_at",
)
VERSION_COLUMNS = ("version", "applies", "created_at", "created_by", *COLUMNS[2:-1])
SUBSCRIPTION_COLUMNS = ("id", "user_id", "plan", "status", "paid_until", "cancels_at", "ended_at")
SYNC_COLUMNS = ("plan", "price_id", "differences")
PlanArgument = Annotated[str, typer.Argument(help="The plan's id.", show_default=False)]
_LimitOption = Annotated[int | None, typer.Option(help="By default no limit.")]
_NewLimitOption = Annotated[int | None, typer.Option(help="0 for no limit.")]
AllLimits = Annotated[
    Mapping[str, int | None], OptionGroup(dict.fromkeys(LIMITS, _LimitOption), dict)
]
AllKeyLimits = Annotated[
    Mapping[str, int | None],
    OptionGroup({f"key_{name}": _LimitOption for name in LIMITS[:3]}, dict),
]
NewLimits = Annotated[
    Mapping[str, int | None], OptionGroup(dict.fromkeys(LIMITS, _NewLimitOption), dict)
]
ScopesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--self-service-scope", help="Scope that users may give to keys; may be repeated."
    ),
]
PriceOption = Annotated[
    str | None, typer.Option("--price", help="Of a period, such as 19.00; none: it is not sold.")
]
PeriodOption = Annotated[
    str | None, typer.Option("--period", help="week, month or year; by default month.")
]
IncludedOption = Annotated[
    str | None, typer.Option("--included-credit", help="Of a period, such as 20.00.")
]
TrialDaysOption = Annotated[
    int | None, typer.Option("--trial-days", help="First days that cost nothing.")
]
TrialCreditOption = Annotated[
    str | None, typer.Option("--trial-credit", help="Credit for these days.")
]
PositionOption = Annotated[
    int | None, typer.Option("--position", help="Plans are shown in this order.")
]
FeeOption = Annotated[
    int | None,
    typer.Option(
        "--own-key-fee-bps", help="Charged of the cost of requests with users' provider keys."
    ),
]
PopularOption = Annotated[
    bool | None, typer.Option("--most-popular/--not-most-popular", help="How it is shown.")
]
AtOnceOption = Annotated[
    bool,
    typer.Option("--at-once", help="For all users now; by default for periods that begin later."),
]

app = ApiCommands(
    name="plans", help="Plans: price, credit, markup and limits.", no_args_is_help=True
)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("list")
def list_plans(client: MeterApi, as_json: JsonOption = None) -> None:
    """List plans."""
    rows = client.get("/plans")["data"]
    show_rows(rows, COLUMNS, as_json, "There are no plans.")


@app.command("show")
def show_plan(client: MeterApi, plan: PlanArgument, as_json: JsonOption = None) -> None:
    """Show every version of a plan, newest first."""
    rows = client.get(f"/plans/{segment(plan)}")["versions"]
    show_rows(rows, VERSION_COLUMNS, as_json, "There are no versions.")


@app.command("set")
def set_plan(
    client: MeterApi,
    plan: PlanArgument,
    name: Annotated[str, typer.Option("--name", help="Name to show to people.")],
    markup_bps: Annotated[
        int, typer.Option("--markup-bps", help="Markup on the cost, in basis points: 500 is 5 %.")
    ],
    limits: AllLimits = NO_LIMITS,
    key_limits: AllKeyLimits = NO_LIMITS,
    max_keys: Annotated[
        int, typer.Option("--max-keys", help="Most live keys that a user may create.")
    ] = 100,
    scope: ScopesOption = None,
    price: PriceOption = None,
    period: PeriodOption = None,
    included_credit: IncludedOption = None,
    trial_days: TrialDaysOption = None,
    trial_credit: TrialCreditOption = None,
    position: PositionOption = None,
    is_most_popular: PopularOption = None,
    own_key_fee_bps: FeeOption = None,
    at_once: AtOnceOption = False,
    as_json: JsonOption = None,
) -> None:
    """Create or replace a plan; a limit that is left out does not apply."""
    given = {
        "position": position,
        "is_most_popular": is_most_popular,
        "own_key_fee_bps": own_key_fee_bps,
    }
    terms = {
        "name": name,
        "markup_bps": markup_bps,
        **limits,
        "key_limits": {name.removeprefix("key_"): most for name, most in key_limits.items()},
        "max_keys": max_keys,
        **({"self_service_scopes": scope} if scope else {}),
        **{member: value for member, value in given.items() if value is not None},
        "price": _price({}, price, period, included_credit, trial_days, trial_credit),
    }
    show_one(client.send("PUT", _path(plan, at_once), terms), as_json)


@app.command("change")
def change_plan(
    client: MeterApi,
    plan: PlanArgument,
    name: Annotated[str | None, typer.Option("--name", help="Name to show to people.")] = None,
    markup_bps: Annotated[
        int | None, typer.Option("--markup-bps", help="In basis points: 500 is 5 %.")
    ] = None,
    limits: NewLimits = NO_LIMITS,
    max_keys: Annotated[
        int | None, typer.Option("--max-keys", help="Most live keys that a user may create.")
    ] = None,
    scope: ScopesOption = None,
    price: PriceOption = None,
    period: PeriodOption = None,
    included_credit: IncludedOption = None,
    trial_days: TrialDaysOption = None,
    trial_credit: TrialCreditOption = None,
    position: PositionOption = None,
    is_most_popular: PopularOption = None,
    own_key_fee_bps: FeeOption = None,
    at_once: AtOnceOption = False,
    as_json: JsonOption = None,
) -> None:
    """Change some terms of a plan; this makes a new version, and what is left out stays."""
    given = {
        "name": name,
        "markup_bps": markup_bps,
        "max_keys": max_keys,
        "self_service_scopes": scope or None,
        "position": position,
        "is_most_popular": is_most_popular,
        "own_key_fee_bps": own_key_fee_bps,
    }
    terms: dict[str, Any] = {
        member: value for member, value in given.items() if value is not None
    } | {name: most or None for name, most in limits.items() if most is not None}
    if any((price, period, included_credit, trial_days is not None, trial_credit)):
        before = client.get(f"/plans/{segment(plan)}")["price"] or {}
        terms["price"] = _price(before, price, period, included_credit, trial_days, trial_credit)
    show_one(client.send("PATCH", _path(plan, at_once), terms), as_json)


@app.command("retire")
def retire_plan(client: MeterApi, plan: PlanArgument, as_json: JsonOption = None) -> None:
    """Sell a plan no more; users keep it, and subscriptions go on."""
    show_one(client.send("POST", f"/plans/{segment(plan)}/retire"), as_json)


@app.command("sync")
def sync_plans(
    client: MeterApi,
    check: Annotated[bool, typer.Option("--check", help="Only say what differs.")] = False,
    as_json: JsonOption = None,
) -> None:
    """Make products and prices of the plans at Stripe; says what differed before."""
    rows = client.send("POST", "/plans/sync", {"may_change": not check})["data"]
    show_rows(rows, SYNC_COLUMNS, as_json, "No plan is sold.")


@app.command("subscriptions")
def list_subscriptions(
    client: MeterApi, limit: LimitOption = 50, as_json: JsonOption = None
) -> None:
    """List subscriptions of users, newest first."""
    rows = client.rows("/subscriptions", limit)
    show_rows(rows, SUBSCRIPTION_COLUMNS, as_json, "There are no subscriptions.")


@app.command("subscribe")
def subscribe_user(
    client: MeterApi,
    user: UserArgument,
    plan: PlanArgument,
    as_json: JsonOption = None,
) -> None:
    """Open the page at Stripe on which a user's subscription begins; prints its address."""
    path = f"/users/{segment(user)}/subscription"
    show_one(client.send("POST", path, {"plan": plan}), as_json)


@app.command("cancel")
def cancel_subscription(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """Have the subscription of a user end with the period that is paid."""
    show_one(client.send("POST", f"/users/{segment(user)}/subscription/cancel"), as_json)


@app.command("pause")
def pause_subscription(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """Charge a user's subscription nothing from the next period on."""
    show_one(client.send("POST", f"/users/{segment(user)}/subscription/pause"), as_json)


@app.command("unpause")
def unpause_subscription(client: MeterApi, user: UserArgument, as_json: JsonOption = None) -> None:
    """Charge a user's subscription again, from the next period on."""
    show_one(client.send("POST", f"/users/{segment(user)}/subscription/unpause"), as_json)


def _path(plan: str, at_once: bool) -> str:
    return f"/plans/{segment(plan)}" + ("?applies=at_once" if at_once else "")


def _price(
    before: Mapping[str, Any],
    amount: str | None,
    period: str | None,
    included: str | None,
    trial_days: int | None,
    trial_credit: str | None,
) -> dict[str, Any] | None:
    """Return the price with what was given; None where the plan is not sold."""
    amount = amount or before.get("amount")
    if amount in (None, "none"):
        if period or included or trial_days or trial_credit:
            raise CommandError("--period, credit and a trial need --price.")
        return None
    old = before.get("trial") or {}
    days = old.get("days", 0) if trial_days is None else trial_days
    credit = trial_credit or old.get("credit")
    return {
        "amount": amount,
        "period": period or before.get("period") or "month",
        "included_credit": included or before.get("included_credit") or "0",
        "trial": {"days": days, "credit": None if credit == "0.00" else credit} if days else None,
    }
