"""`python -m meter`: serve, migrate, or set a provider's key."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from meter.errors import MeterError
from meter.providers import openrouter


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
            asyncio.run(_migrate())
        elif parsed.command == "set-provider-key":
            asyncio.run(_set_provider_key(parsed.provider, parsed.replace))
        else:
            _serve()
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


# Each command imports its own modules: those of `serve` take a second of CPU and more, which each
# start of a stack would pay three times.
def _serve() -> None:
    import uvloop

    from meter.process.telemetry import configure_logs
    from meter.serve import serve
    from meter.settings import MeterSettings

    settings = MeterSettings()  # type: ignore[call-arg]
    configure_logs(settings.log_format)
    uvloop.run(serve(settings))


async def _migrate() -> None:
    from meter.postgres.migrate import migrate
    from meter.settings import MigrationSettings

    settings = MigrationSettings()  # type: ignore[call-arg]
    new = await migrate(settings.migration_database_url.get_secret_value())
    print(f"applied {', '.join(new)}" if new else "the database is up to date")


async def _set_provider_key(provider: str, may_replace: bool) -> None:
    from meter.postgres.pool import open_pool
    from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
    from meter.sealing import MasterKey, SecretText
    from meter.settings import MeterSettings

    settings = MeterSettings()  # type: ignore[call-arg]
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
