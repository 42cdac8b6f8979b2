"""The command line: `tollkeeper ...`."""

import sys
from collections.abc import Callable

import typer

from tollkeeper.commands import (
    audit,
    envoy,
    explain,
    health,
    holds,
    identities,
    issuers,
    keys,
    ledger,
    limits,
    models,
    passes,
    plans,
    providers,
    reconcile,
    signing_keys,
    stack,
    usage,
    users,
)
from tollkeeper.commands import credits as credit
from tollkeeper.errors import CommandError

REGISTRATIONS: tuple[Callable[[typer.Typer], None], ...] = (
    stack.register,
    users.register,
    keys.register,
    credit.register,
    usage.register,
    models.register,
    plans.register,
    limits.register,
    providers.register,
    holds.register,
    ledger.register,
    audit.register,
    passes.register,
    signing_keys.register,
    issuers.register,
    identities.register,
    reconcile.register,
    envoy.register,
    explain.register,
    health.register,
)


def build() -> typer.Typer:
    """The application with every command mounted."""
    app = typer.Typer(
        name="tollkeeper",
        help="A prepaid gateway for large language models.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for register in REGISTRATIONS:
        register(app)
    return app


def main() -> None:
    """Run one command; what it cannot do is one sentence on stderr and exit code 1."""
    try:
        build()()
    except CommandError as error:
        typer.echo(f"tollkeeper: {error}", err=True)
        sys.exit(1)
