"""`tollkeeper providers`: the providers, and the keys that they are called with."""

import enum
from typing import Annotated, Any

import typer

from tollkeeper.api_client import MeterApi, connect, segment
from tollkeeper.commands.api_commands import ApiCommands
from tollkeeper.commands.identity.secret_input import read_secret
from tollkeeper.errors import CommandError
from tollkeeper.tables import JsonOption, say, show_one, show_rows, show_verdict, wants_json

COLUMNS = (
    *("name", "dialect", "state", "base_url", "models", "key_hint", "key_version"),
    *("key_updated_at", "key_refused", "failure"),
)
# The provider is asked twice, for 20 seconds at most.
CHECK_TIMEOUT_S = 60.0

app = ApiCommands(name="providers", help="Providers and their keys.")
ProviderArgument = Annotated[
    str, typer.Argument(help="The provider's name, such as openai.", show_default=False)
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option("--base-url", help="The address before /chat/completions; https as a rule."),
]
PrefixOption = Annotated[
    str | None,
    typer.Option("--prefix", help="Put before the provider's names of models, as `openai/`."),
]


class DialectName(enum.StrEnum):
    """The dialects of further providers."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    OPENAI_COMPATIBLE = "openai_compatible"


def register(root: typer.Typer) -> None:
    """Add the group to the application."""
    root.add_typer(app)


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Providers and their keys. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_providers(connect(None, None))


@app.command("list")
def list_providers(client: MeterApi, as_json: JsonOption = None) -> None:
    """List the providers, and whether each has a key and models."""
    listed = client.get("/providers")["data"]
    if not wants_json(as_json):
        listed = [_flat(one) for one in listed]
    show_rows(listed, COLUMNS, as_json, "There are no providers.")


@app.command("show")
def show_provider(client: MeterApi, provider: ProviderArgument, as_json: JsonOption = None) -> None:
    """Show a provider with the state of its key and of its models."""
    _show(client.get(f"/providers/{segment(provider)}"), as_json)


@app.command("create")
def create_provider(
    client: MeterApi,
    provider: ProviderArgument,
    dialect: Annotated[
        DialectName,
        typer.Option("--dialect", help="How it is asked; vLLM, Ollama, Groq: openai_compatible."),
    ],
    base_url: BaseUrlOption = None,
    prefix: PrefixOption = None,
    is_free: Annotated[
        bool, typer.Option("--free", help="Models without a price cost nothing.")
    ] = False,
    as_json: JsonOption = None,
) -> None:
    """Make a provider; then set its key, if it needs one, and check it."""
    body = {
        "name": provider,
        "dialect": dialect.value,
        "base_url": base_url,
        "model_prefix": prefix,
        "is_free": is_free,
    }
    _show(client.send("POST", "/providers", body), as_json)


@app.command("change")
def change_provider(
    client: MeterApi,
    provider: ProviderArgument,
    base_url: BaseUrlOption = None,
    prefix: PrefixOption = None,
    is_free: Annotated[
        bool | None, typer.Option("--free/--not-free", help="Models without a price cost nothing.")
    ] = None,
    as_json: JsonOption = None,
) -> None:
    """Change a provider."""
    given = {"base_url": base_url, "model_prefix": prefix, "is_free": is_free}
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise CommandError("Nothing to change: name --base-url, --prefix, --free or --not-free.")
    _show(client.send("PATCH", f"/providers/{segment(provider)}", body), as_json)


@app.command("check")
def check_provider(
    client: MeterApi, provider: ProviderArgument, as_json: JsonOption = None
) -> None:
    """Ask a provider for its models, which costs nothing, and say what is wrong."""
    path = f"/providers/{segment(provider)}/check"
    found = client.send("POST", path, timeout_s=CHECK_TIMEOUT_S)
    show_verdict(found, found, as_json)


@app.command("disable")
def disable_provider(
    client: MeterApi, provider: ProviderArgument, as_json: JsonOption = None
) -> None:
    """Send no further requests to a provider; requests under way go on."""
    _show(client.send("POST", f"/providers/{segment(provider)}/disable"), as_json)


@app.command("enable")
def enable_provider(
    client: MeterApi, provider: ProviderArgument, as_json: JsonOption = None
) -> None:
    """Let requests go to a provider again."""
    _show(client.send("POST", f"/providers/{segment(provider)}/enable"), as_json)


@app.command("delete")
def delete_provider(client: MeterApi, provider: ProviderArgument) -> None:
    """Delete a provider with its keys; its prices and its usage stay."""
    client.send("DELETE", f"/providers/{segment(provider)}")
    say(f"The provider {provider} is deleted.")


@app.command("set-key")
def set_key(
    client: MeterApi,
    provider: ProviderArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Store it without asking the provider.")
    ] = False,
) -> None:
    """Set a provider's key; it is read from standard input, or typed without being shown.

    The provider is asked first; a key that it refuses is not stored.
    """
    body = {"key": read_secret("Key"), "force": force}
    client.send("PUT", f"/providers/{segment(provider)}/key", body)
    say(f"The key of {provider} is set.")


def _show(found: dict[str, Any], as_json: bool | None) -> None:
    show_one(found if wants_json(as_json) else _flat(found), as_json)


def _flat(one: dict[str, Any]) -> dict[str, Any]:
    """Return a provider with the facts about its key and its sync as members of its own."""
    key, sync = one.pop("key") or {}, one.pop("sync") or {}
    one["models"] = sync.get("models")
    one["key_hint"] = key.get("hint", "not set")
    one["key_version"] = key.get("key_version")
    one["key_updated_at"] = key.get("updated_at")
    if key.get("refused_at") is not None:
        one["key_refused"] = f"{key['refused_status']}: {key['refused_reason']}"
    one["failure"] = sync.get("failure")
    return one
