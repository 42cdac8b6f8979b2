"""`tollkeeper catalogue`: the models of the provider that are not offered."""

import typer

from tollkeeper.api_client import connect
from tollkeeper.tables import ApiOption, HomeOption, JsonOption, show_rows

WITHHELD_COLUMNS = ("model", "reason", "since")

app = typer.Typer(name="catalogue", help="Models that are not offered.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.command("withheld")
def list_withheld(
    api: ApiOption = None, home: HomeOption = None, as_json: JsonOption = None
) -> None:
    """List the models that the provider lists and that are not offered, with the reasons."""
    listed = connect(api, home).get("/catalogue/withheld")["data"]
    show_rows(listed, WITHHELD_COLUMNS, as_json, "Every model that is listed is offered.")
