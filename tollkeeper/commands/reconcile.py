"""`tollkeeper reconcile`: compare the books with one another and with the provider."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi
from tollkeeper.commands.api_commands import with_client
from tollkeeper.commands.ledger import VERIFICATION_TIMEOUT_S
from tollkeeper.tables import (
    JsonOption,
    LimitOption,
    print_json,
    show_rows,
    show_verdict,
    wants_json,
)

COLUMNS = ("at", "id", "ok", "drift", "attention")


def register(root: typer.Typer) -> None:
    """Add the commands to the application."""
    root.command("reconcile")(with_client(reconcile))
    root.command("reconciliations")(with_client(list_reconciliations))


def reconcile(
    client: MeterApi,
    has_new_baseline: Annotated[
        bool,
        typer.Option(
            "--new-baseline",
            help="Accept the provider's total as it is now; compare only what changes later.",
        ),
    ] = False,
    as_json: JsonOption = None,
) -> None:
    """Compare ledger, usage, holds, credit and the provider's total; exit code 1 for drift.

    The command repairs nothing. It stores a report of the books that differ, and by how much.
    """
    path = "/reconciliations" + ("?new_baseline=true" if has_new_baseline else "")
    found = client.send("POST", path, timeout_s=VERIFICATION_TIMEOUT_S)
    books = {
        one["book"]: f"{one['found']} (expected {one['expected']}, drift {one['drift']})"
        for one in found["books"]
    }
    lines = {
        "reconciliation": "the books agree" if found["ok"] else "THE BOOKS DRIFT APART",
        **{f"failure: {one['invariant']}": one["message"] for one in found["failures"]},
        **books,
        "provider": _provider(found),
        **found["attention"],
        "report": found["id"],
    }
    show_verdict(found, lines, as_json)


def list_reconciliations(
    client: MeterApi, limit: LimitOption = 30, as_json: JsonOption = None
) -> None:
    """List past reconciliations, including the daily ones."""
    rows = client.rows("/reconciliations", limit)
    if wants_json(as_json):
        print_json(list(rows))
        return
    shown = []
    for row in rows:
        books = [*row["books"]]
        if row["provider"]:
            books.append({**row["provider"], "book": "provider"})
        drifts = {one["book"]: one["drift"] for one in books if one["drift"] != "0.00"}
        drifts |= {one["invariant"]: str(one["count"]) for one in row["failures"]}
        attention = {name: count for name, count in row["attention"].items() if count}
        shown.append({**row, "drift": drifts or "none", "attention": attention or "none"})
    show_rows(shown, COLUMNS, as_json, "There are no reconciliations yet.")


def _provider(found: dict[str, Any]) -> str:
    provider = found["provider"]
    if provider is None:
        return f"not compared: {found['provider_problem']}"
    if provider["is_new_baseline"]:
        return f"{provider['provider_total']} (the baseline of later comparisons)"
    return (
        f"{provider['provider_total']} (ledger {provider['ledger_cost']}, "
        f"in flight {provider['in_flight']} at most, drift {provider['drift']})"
    )
