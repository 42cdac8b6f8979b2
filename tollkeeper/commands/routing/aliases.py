"""`tollkeeper aliases`: names of ours for models."""

from typing import Annotated
from urllib.parse import quote

import typer

from tollkeeper.api_client import MeterApi, connect
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.tables import JsonOption, say, show_one, show_rows

COLUMNS = ("name", "model", "is_redirect")

app = ApiCommands(name="aliases", help="Names of ours for models.")
NameArgument = Annotated[str, typer.Argument(help="A name such as fast.", show_default=False)]


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Names of ours for models. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_aliases(connect(None, None))


@app.command("list")
def list_aliases(client: MeterApi, as_json: JsonOption = None) -> None:
    """List aliases and the models that they mean."""
    show_rows(client.get("/aliases")["data"], COLUMNS, as_json, "There are no aliases.")


@app.command("set")
def set_alias(
    client: MeterApi,
    name: NameArgument,
    model: Annotated[str, typer.Argument(help="The id of the model.", show_default=False)],
    is_redirect: Annotated[
        bool,
        typer.Option(
            "--when-retired", help="The name is a model's: it applies once nobody offers it."
        ),
    ] = False,
    as_json: JsonOption = None,
) -> None:
    """Create an alias of a model, or change one."""
    body = {"model": model, "is_redirect": is_redirect}
    show_one(client.send("PUT", f"/aliases/{quote(name)}", body), as_json)


@app.command("remove")
def remove_alias(client: MeterApi, name: NameArgument) -> None:
    """Remove an alias."""
    client.send("DELETE", f"/aliases/{quote(name)}")
    say(f"The alias {name} is removed.")
