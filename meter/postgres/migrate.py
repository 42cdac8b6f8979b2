"""Applies each numbered SQL file of `migrations/` once, and grants the service role its rights.

The service role may append to the history and never change it (rule V11); the owner role owns
the tables and is used for migrations only.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Final

import asyncpg

from meter.errors import BrokenInvariant

SERVICE_ROLE: Final = "tollkeeper_service"
# Any number will do, as long as every migrating process takes the same lock.
_ADVISORY_LOCK: Final = 7_261_994_310_482_113

_GRANTS: Final = f"""
GRANT USAGE ON SCHEMA public TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE ON accounts, plans, credentials, operators, provider_keys, models,
    prices, catalogue_syncs, holds, ledger_chains, lookups, report_feeds, undecided_requests,
    log_positions, issuers, credential_secrets, credential_uses, passes, signing_keys, limit_rules,
    spending, usual_uses, key_days, account_changes, usage_days, usage_position TO {SERVICE_ROLE};
GRANT DELETE ON provider_keys, operators, lookups, undecided_requests, credential_secrets, passes,
    signing_keys, limit_rules, spending, issuers, parked_endings, usual_uses,
    auto_top_ups TO {SERVICE_ROLE};
GRANT SELECT, INSERT ON usage_rows, settlement_conflicts, posting_rows, entry_rows, ledger_batches,
    credit_postings, provider_totals, reconciliations, audit_log, parked_endings, write_offs
    TO {SERVICE_ROLE};
GRANT UPDATE (taken_back_picos) ON write_offs TO {SERVICE_ROLE};
GRANT SELECT ON ledger_batch_numbers, postings_position TO {SERVICE_ROLE};
GRANT SELECT, INSERT ON ledger_checkpoints TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE ON checkpoint_sums TO {SERVICE_ROLE};
GRANT SELECT ON settlements, kept_settlements, ended_hold_rows, postings, entries, usage_records,
    ended_holds TO {SERVICE_ROLE};
GRANT SELECT, INSERT ON plan_versions, plan_prices, subscription_invoices TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE ON subscriptions TO {SERVICE_ROLE};
GRANT SELECT ON account_plans, schema_migrations, dropped_months, sealed_entries, sealed_usage,
    live_principals, listed_credentials TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE, DELETE ON withheld_models, catalogue_doubts, raised_estimates,
    providers, offers, routes, route_providers, model_aliases TO {SERVICE_ROLE};
GRANT DELETE ON catalogue_syncs TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE ON selling_terms, stripe_customers, purchases, stripe_events,
    stripe_sweeps, stripe_comparisons, go_lives, coupons, coupon_attempts,
    auto_top_ups, own_key_terms, provider_costs TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE (remaining_picos, expired_picos) ON credit_lots TO {SERVICE_ROLE};
GRANT SELECT, INSERT ON payments, payment_reversals, coupon_redemptions, lot_expiries
    TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE ON sinks, parked_events, sink_accounts TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks, webhook_messages TO {SERVICE_ROLE};
GRANT DELETE ON parked_events, sink_accounts TO {SERVICE_ROLE};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {SERVICE_ROLE};
GRANT EXECUTE ON FUNCTION place_holds, move_balances, release_holds, end_holds, append_postings,
    settle_holds, take_chain, seal_batch, settlement_record, first_hash, checkpoint_sums_hash,
    sums_of_batches, sums_of_books, seal_checkpoint, release_free_holds, lock_accounts,
    move_spending, move_money, count_spending, ledger_line, prepare_months, drop_months,
    lock_month, forget_records, add_up_settlements, expirable_lots, expired_credit, close_lots,
    take_from_lots, put_back_in_lots, settle_lots, add_lot, expire_lot, tell_account, webhook_body,
    usd TO {SERVICE_ROLE};
"""


@dataclass(frozen=True, slots=True)
class _Migration:
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(owner_dsn: str) -> list[str]:
    """Bring the database up to date; returns the names of the migrations applied now.

    Raises BrokenInvariant when a migration that was applied has since been edited.
    """
    connection = await asyncpg.connect(owner_dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _ADVISORY_LOCK)
        return await _apply_missing(connection)
    finally:
        await connection.close()


async def _apply_missing(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "name text PRIMARY KEY, checksum text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    rows = await connection.fetch("SELECT name, checksum FROM schema_migrations")
    applied = {row["name"]: row["checksum"] for row in rows}
    new: list[str] = []
    for migration in _migrations():
        if migration.name not in applied:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)",
                    migration.name,
                    migration.checksum,
                )
            new.append(migration.name)
        elif applied[migration.name] != migration.checksum:
            raise BrokenInvariant(
                f"the applied migration {migration.name} was edited since: "
                "use the version that applied it, or a new database"
            )
    await connection.execute(_GRANTS)
    return new


def _migrations() -> Iterator[_Migration]:
    folder = resources.files("meter.postgres.migrations")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            yield _Migration(file.name, file.read_text(encoding="utf-8"))
