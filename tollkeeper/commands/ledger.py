"""`tollkeeper ledger`: whether the books agree with themselves."""

from typing import Any

import typer

from tollkeeper.api_client import connect
from tollkeeper.tables import ApiOption, HomeOption, JsonOption, print_json, show_one, wants_json

# A large ledger takes its time; this is the limit of the meter's own queries.
VERIFICATION_TIMEOUT_S = 600.0

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
    """Recompute every balance, hold and settlement; exit code 1 when something is wrong."""
    found = connect(api, home).get("/ledger/verification", VERIFICATION_TIMEOUT_S)
    if wants_json(as_json):
        print_json(found)
    else:
        show_one(_lines(found), as_json)
    if not found["ok"]:
        raise typer.Exit(1)


def _lines(found: dict[str, Any]) -> dict[str, Any]:
    """The outcome first, then what was checked and what it adds up to."""
    verdict = "the books agree" if found["ok"] else "THE BOOKS ARE WRONG"
    failures = {
        f"failure: {one['invariant']}": f"{one['message']}: {', '.join(one['sample_ids'])}"
        for one in found["failures"]
    }
    totals = {name: found[name] for name in found if name not in ("ok", "failures", "took_ms")}
    return {"ledger": verdict, **failures, **totals, "took": f"{found['took_ms']} ms"}
