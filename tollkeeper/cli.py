"""The command line: `tollkeeper ...`."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module, metadata
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple

import typer

from tollkeeper.errors import CommandError

COMPLETION_VARIABLE: Final = "_TOLLKEEPER_COMPLETE"


class Entry(NamedTuple):
    """The module that registers a command, and the line that the command has in the help."""

    module: str
    help: str


_COMMANDS: Final = "tollkeeper.commands."
# Only the module of the command that runs is imported: all of them take ten times as long.
ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        name: Entry(_COMMANDS + module, text)
        for name, module, text in (
            ("up", "stack", "Start the whole system on this machine."),
            ("down", "stack", "Stop the system that runs on this machine."),
            ("restart", "stack", "Restart a component of the running system."),
            ("status", "stack", "Show what runs and whether it is healthy."),
            ("users", "users", "Users and their terms."),
            ("keys", "identity.keys", "API keys of users."),
            ("credits", "credits", "Credit of users, in US dollars."),
            ("payments", "selling.payments", "Credit that is sold through Stripe."),
            ("billing", "selling.billing", "Go live: the checks before real money is taken."),
            ("coupons", "selling.coupons", "Codes that give credit."),
            ("usage", "usage", "Add up a user's requests, tokens and costs."),
            ("transactions", "usage", "List what moved a user's balance."),
            (
                "export",
                "exports.files",
                "Write usage, transactions, payments or invoices to a file.",
            ),
            ("sinks", "exports.sinks", "Systems that usage is sent to."),
            ("webhooks", "exports.webhooks", "Where users are told of events."),
            ("models", "models", "List models with their prices."),
            ("catalogue", "catalogue", "Models that are not offered, doubts, raised estimates."),
            ("plans", "plans", "Plans: price, credit, markup and limits."),
            ("limits", "limits", "Limit rules for plans, users, keys and models."),
            ("providers", "providers", "Providers and their keys."),
            ("prices", "prices", "Price lists for providers."),
            ("routes", "routing.routes", "Routes: which providers serve which models."),
            ("aliases", "routing.aliases", "Names of ours for models."),
            ("holds", "holds", "Money set aside for requests."),
            ("ledger", "ledger", "Verify the ledger; list its months and conflicts."),
            ("audit", "audit", "Show the audit log."),
            ("passes", "identity.passes", "Short-lived JWTs made from keys."),
            ("signing-keys", "identity.signing_keys", "Keys that sign passes."),
            ("issuers", "identity.issuers", "Issuers of JWTs that are accepted."),
            ("identities", "identity.identities", "Subjects and certificates of users."),
            ("reconcile", "reconcile", "Compare the books with the provider's totals."),
            ("reconciliations", "reconcile", "List past reconciliations."),
            ("explain", "explain", "Explain the decision about a request."),
            ("envoy", "envoy", "Run Envoy with Tollkeeper's configuration."),
            ("health", "health", "Ask one component whether it is ready."),
        )
    }
)


def build(command: str | None = None) -> typer.Typer:
    """Return the application with every command, or with that one and the names of the others."""
    app = typer.Typer(
        name="tollkeeper",
        help="A prepaid gateway for large language models.",
        no_args_is_help=True,
        # Tables and colours in the help would double the time until it shows.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    if command is None:
        for module in dict.fromkeys(entry.module for entry in ENTRIES.values()):
            import_module(module).register(app)
        return app
    wanted = ENTRIES.get(command)
    if wanted is not None:
        import_module(wanted.module).register(app)
    for name, entry in ENTRIES.items():
        if wanted is None or entry.module != wanted.module:
            app.command(name, help=entry.help)(_not_imported)
    return app


def main() -> None:
    """Run one command; a CommandError becomes one sentence on stderr and exit code 1."""
    named = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    is_completing = COMPLETION_VARIABLE in os.environ
    try:
        build(None if is_completing else named)()
    except CommandError as error:
        typer.echo(f"tollkeeper: {error}", err=True)
        sys.exit(1)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"tollkeeper {metadata.version('tollkeeper')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def _not_imported() -> None:
    raise AssertionError("the module of a command that runs is imported")
