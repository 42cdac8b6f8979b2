"""`tollkeeper ledger`: whether the books agree with themselves, and what is kept of them."""

from typing import Any

import typer

from tollkeeper.api_client import connect
from tollkeeper.tables import (
    ApiOption,
    HomeOption,
    JsonOption,
    LimitOption,
    show_rows,
    show_verdict,
)

# A large ledger takes its time; this is the limit of the meter's own queries.
VERIFICATION_TIMEOUT_S = 600.0

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

app = typer.Typer(name="ledger", help="The ledger.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.callback()
def group() -> None:
    """The ledger: every amount, twice, for good."""


@app.command("verify")
def verify_ledger(
    api: ApiOption = None, home: HomeOption = None, as_json: JsonOption = None
) -> None:
    """Recompute every balance, hold, settlement and the chain; exit code 1 when one is wrong.

    Nothing is stopped meanwhile. Write the head of the chain down elsewhere: it shows later
    whether the ledger was made anew.
    """
    found = connect(api, home).get("/ledger/verification", VERIFICATION_TIMEOUT_S)
    show_verdict(found, _lines(found), as_json)


@app.command("conflicts")
def list_conflicts(
    limit: LimitOption = 50,
    api: ApiOption = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """List arrivals that contradicted the books and were kept without being applied."""
    rows = connect(api, home).rows("/settlement-conflicts", limit)
    show_rows(rows, CONFLICT_COLUMNS, as_json, "Nothing contradicted the books.")


@app.command("months")
def list_months(api: ApiOption = None, home: HomeOption = None, as_json: JsonOption = None) -> None:
    """List which months of history are kept, and which were dropped."""
    rows = connect(api, home).get("/ledger/months")["data"]
    show_rows(rows, MONTH_COLUMNS, as_json, "There are no months.")


def _lines(found: dict[str, Any]) -> dict[str, Any]:
    """The outcome first, then what was checked and what it adds up to."""
    verdict = "the books agree" if found["ok"] else "THE BOOKS ARE WRONG"
    failures = {
        f"failure: {one['invariant']}": f"{one['message']}: {', '.join(one['sample_ids'])}"
        for one in found["failures"]
    }
    apart = ("ok", "failures", "head", "dropped_months", "took_ms")
    head = found["head"]
    return {
        "ledger": verdict,
        **failures,
        **{name: found[name] for name in found if name not in apart},
        "head of the chain": f"{head['number']} {head['hash']}" if head else "missing",
        "dropped_months": [f"{one['kind']} {one['month']}" for one in found["dropped_months"]],
        "took": f"{found['took_ms']} ms",
    }
