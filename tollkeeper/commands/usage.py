"""`tollkeeper usage` and `tollkeeper transactions`: a user's requests and their costs."""

import enum
from typing import Annotated

import typer

from tollkeeper.api_client import MeterApi, segment
from tollkeeper.commands.api_commands import with_client
from tollkeeper.commands.users import UserArgument
from tollkeeper.tables import JsonOption, LimitOption, show_rows

USAGE_COLUMNS = (
    "group",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "provider_cost",
    "charge",
    "own_key_cost",
)
TRANSACTION_COLUMNS = (
    "at",
    "type",
    "amount",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "reason",
)


class Grouping(enum.StrEnum):
    """The ways to group usage."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"


def register(root: typer.Typer) -> None:
    """Add the commands to the application."""
    root.command("usage")(with_client(show_usage))
    root.command("transactions")(with_client(list_transactions))


def show_usage(
    client: MeterApi,
    user: UserArgument,
    by: Annotated[
        Grouping, typer.Option("--by", help="Make a row per day, model or key.")
    ] = Grouping.DAY,
    first: Annotated[
        str | None,
        typer.Option("--from", help="First day (UTC), as 2026-01-31; by default 30 days ago."),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last day, included; by default today.")
    ] = None,
    limit: LimitOption = 1000,
    as_json: JsonOption = None,
) -> None:
    """Add up a user's requests, tokens and costs by day, model or key."""
    period = {"group_by": by.value, "from": first, "to": last}
    rows = client.rows(f"/users/{segment(user)}/usage", limit, **period)
    show_rows(rows, USAGE_COLUMNS, as_json, "There is no usage in this period.")


def list_transactions(
    client: MeterApi, user: UserArgument, limit: LimitOption = 50, as_json: JsonOption = None
) -> None:
    """List the transactions that changed a user's balance, newest first."""
    rows = client.rows(f"/users/{segment(user)}/transactions", limit)
    show_rows(rows, TRANSACTION_COLUMNS, as_json, "The user has no transactions.")
