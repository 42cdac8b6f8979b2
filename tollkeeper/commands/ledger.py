"""`tollkeeper ledger`: verify the books, and list their months and conflicts."""

import typer

from tollkeeper.api_client import MeterApi
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import (
    JsonOption,
    LimitOption,
    show_rows,
    show_verdict,
)

# 20 us an entry: for a ledger of 10^9.
VERIFICATION_TIMEOUT_S = 21_600.0

CONFLICT_COLUMNS = (
    "at",
    "kind",
    "hold_id",
    "user_id",
    "recorded_cost",
    "arrived_cost",
    "arrived_by",
    "generation_id",
)
MONTH_COLUMNS = ("month", "kind", "is_kept", "bytes_on_disk", "dropped_at")

app = ApiCommands(name="ledger", help="The ledger.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.callback()
def group() -> None:
    """Verify the double-entry ledger, and list its months and conflicts."""


@app.command("verify")
def verify_ledger(client: MeterApi, as_json: JsonOption = None) -> None:
    """Recompute all balances, holds, settlements and the hash chain; exit code 1 if one is wrong.

    Requests go on meanwhile. Note the head of the chain outside this system: a later comparison
    shows whether somebody rewrote the ledger.
    """
    found = client.get("/ledger/verification", VERIFICATION_TIMEOUT_S)
    failures = {
        f"failure: {one['invariant']}": f"{one['message']}: {', '.join(one['sample_ids'])}"
        for one in found["failures"]
    }
    apart = ("ok", "failures", "head", "dropped_months", "took_ms")
    head = found["head"]
    lines = {
        "ledger": "the books agree" if found["ok"] else "THE BOOKS ARE WRONG",
        **failures,
        **{name: found[name] for name in found if name not in apart},
        "head of the chain": f"{head['number']} {head['hash']}" if head else "missing",
        "dropped_months": [f"{one['kind']} {one['month']}" for one in found["dropped_months"]],
        "took": f"{found['took_ms']} ms",
    }
    show_verdict(found, lines, as_json)


@app.command("conflicts")
def list_conflicts(client: MeterApi, limit: LimitOption = 50, as_json: JsonOption = None) -> None:
    """List usage records that contradict the books; they are kept but not applied."""
    rows = client.rows("/settlement-conflicts", limit)
    show_rows(rows, CONFLICT_COLUMNS, as_json, "There are no conflicts.")


@app.command("months")
def list_months(client: MeterApi, as_json: JsonOption = None) -> None:
    """List the months of history, kept or dropped."""
    rows = client.get("/ledger/months")["data"]
    show_rows(rows, MONTH_COLUMNS, as_json, "There are no months.")
