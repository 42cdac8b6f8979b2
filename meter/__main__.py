"""`python -m meter`: serve, migrate, or set a provider's key."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

import uvloop
from pydantic import ValidationError

from meter.errors import MeterError
from meter.postgres.migrate import migrate
from meter.postgres.pool import open_pool
from meter.process.telemetry import configure_logs
from meter.providers import openrouter
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.sealing import MasterKey, SecretText
from meter.serve import serve
from meter.settings import MeterSettings, MigrationSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m meter", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve the API and take the access log in (the default)")
    commands.add_parser("migrate", help="bring the database up to date")
    set_key = commands.add_parser(
        "set-provider-key", help="seal the provider key read from standard input"
    )
    set_key.add_argument("provider", choices=[openrouter.ID])
    set_key.add_argument(
        "--replace", action="store_true", help="even where another master key sealed the old one"
    )
    parsed = parser.parse_args(arguments)
    try:
        if parsed.command == "migrate":
            asyncio.run(_migrate(MigrationSettings()))  # type: ignore[call-arg]
        elif parsed.command == "set-provider-key":
            settings = MeterSettings()  # type: ignore[call-arg]
            asyncio.run(_set_provider_key(settings, parsed.provider, parsed.replace))
        else:
            settings = MeterSettings()  # type: ignore[call-arg]
            configure_logs(settings.log_format)
            uvloop.run(serve(settings))
        return 0
    except ValidationError as error:
        # Only names and reasons: the rejected input may be a secret.
        for problem in error.errors(include_input=False, include_url=False):
            name = "TOLLKEEPER_" + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"meter: {name}: {problem['msg']}", file=sys.stderr)
        return 2
    except (MeterError, OSError) as error:
        print(f"meter: {error}", file=sys.stderr)
        return 1


async def _migrate(settings: MigrationSettings) -> None:
    new = await migrate(settings.migration_database_url.get_secret_value())
    print(f"applied {', '.join(new)}" if new else "the database is up to date")


async def _set_provider_key(settings: MeterSettings, provider: str, may_replace: bool) -> None:
    plain = SecretText(sys.stdin.readline().strip())
    pool = await open_pool(settings.database_url.get_secret_value(), most_connections=1)
    try:
        keys = PostgresProviderKeys(pool, MasterKey.from_file(settings.master_key_file))
        version = await keys.set_key(provider, SYSTEM_OWNER, plain, may_replace)
    finally:
        await pool.close()
    print(f"the {provider} key is set (version {version})")


if __name__ == "__main__":
    sys.exit(main())
