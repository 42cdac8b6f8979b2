"""`tollkeeper reconcile`: compares the books with one another and with the provider."""

from typing import Annotated, Any

import typer

from tollkeeper.api_client import connect
from tollkeeper.commands.ledger import VERIFICATION_TIMEOUT_S
from tollkeeper.tables import (
    ApiOption,
    HomeOption,
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
    root.command("reconcile")(reconcile)
    root.command("reconciliations")(list_reconciliations)


def reconcile(
    has_new_baseline: Annotated[
        bool,
        typer.Option("--new-baseline", help="Take the provider's total as explained from here on."),
    ] = False,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Compare ledger, usage, holds, credit and the provider's total; exit code 1 for drift.

    Nothing is repaired: the report is kept, and says which books differ and by how much.
    """
    path = "/reconciliations" + ("?new_baseline=true" if has_new_baseline else "")
    found = connect(api, home).send("POST", path, timeout_s=VERIFICATION_TIMEOUT_S)
    show_verdict(found, _lines(found), as_json)


def list_reconciliations(
    limit: LimitOption = 30,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """List past reconciliations, those of the daily task included."""
    rows = connect(api, home).rows("/reconciliations", limit)
    if wants_json(as_json):
        print_json(list(rows))
        return
    # What people should look at, without what there is nothing of.
    shown = [
        {
            **row,
            "drift": _drifts(row) or "none",
            "attention": {name: count for name, count in row["attention"].items() if count}
            or "none",
        }
        for row in rows
    ]
    show_rows(shown, COLUMNS, as_json, "Nothing was reconciled yet.")


def _lines(found: dict[str, Any]) -> dict[str, Any]:
    """The outcome first, then a line a book."""
    verdict = "the books agree" if found["ok"] else "THE BOOKS DRIFT APART"
    books = {
        one["book"]: f"{one['found']} (expected {one['expected']}, drift {one['drift']})"
        for one in found["books"]
    }
    failures = {f"failure: {one['invariant']}": one["message"] for one in found["failures"]}
    provider = _provider(found)
    return {
        "reconciliation": verdict,
        **failures,
        **books,
        "provider": provider,
        **found["attention"],
        "report": found["id"],
    }


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


def _drifts(row: dict[str, Any]) -> dict[str, str]:
    """Return the drift of each book, and broken invariants by name."""
    compared = [
        *row["books"],
        *([{**row["provider"], "book": "provider"}] if row["provider"] else []),
    ]
    drifts = {one["book"]: one["drift"] for one in compared if one["drift"] != "0.00"}
    return drifts | {one["invariant"]: str(one["count"]) for one in row["failures"]}
