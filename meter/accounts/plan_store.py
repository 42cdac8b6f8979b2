"""Plans in Postgres."""

from typing import Any, Final

import asyncpg

from meter.accounts.account import Plan
from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.limits.limits import Rates, rates_to_json
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.scopes import scopes_of

_QUERIES: Final = queries("meter.accounts")
_LIST_PLANS: Final = _QUERIES["list_plans"]
_LOCK_PLAN: Final = _QUERIES["lock_plan"]
_PUT_PLAN: Final = _QUERIES["put_plan"]


class PlanStore:
    """Lists and sets plans. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_all(self) -> list[Plan]:
        """Return every plan, in order of the ids."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_PLANS)
        return [_plan(row) for row in rows]

    async def put(self, actor: Actor, plan: Plan) -> bool:
        """Create a plan or change its terms. Returns whether it is new."""
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK_PLAN, plan.id)
            before = {} if row is None else _audit_detail(_plan(row))
            is_new = await connection.fetchval(
                _PUT_PLAN,
                plan.id,
                plan.name,
                plan.markup_bps,
                *rate_columns(plan.rates),
                *rate_columns(plan.key_rates),
                plan.max_keys,
                sorted(plan.self_service_scopes),
            )
            changes = changes_between(before, _audit_detail(plan))
            if is_new or changes:
                event = AuditEvent("plan.set", f"plan:{plan.id}", None, changes)
                await write_audit(connection, actor, event)
        return bool(is_new)


def rates_of(row: asyncpg.Record, prefix: str = "") -> Rates:
    """Return the limits in a row whose columns begin with `prefix`."""
    return Rates(
        row[f"{prefix}requests_per_minute"],
        row[f"{prefix}tokens_per_minute"],
        row[f"{prefix}concurrent_requests"],
    )


def rate_columns(rates: Rates) -> tuple[int | None, int | None, int | None]:
    """Return limits in the order of their columns."""
    return rates.requests_per_minute, rates.tokens_per_minute, rates.concurrent_requests


def _plan(row: asyncpg.Record) -> Plan:
    return from_row(
        Plan,
        row,
        rates=rates_of(row),
        key_rates=rates_of(row, "key_"),
        self_service_scopes=scopes_of(row["self_service_scopes"]),
    )


def _audit_detail(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "markup_bps": plan.markup_bps,
        **rates_to_json(plan.rates),
        **{f"key_{name}": value for name, value in rates_to_json(plan.key_rates).items()},
        "max_keys": plan.max_keys,
        "self_service_scopes": sorted(plan.self_service_scopes),
    }
