"""Plans and their versions in Postgres."""

from typing import TYPE_CHECKING, Final

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import NotFound
from meter.limits.rate_rows import rate_columns, rates_of
from meter.plans.plan import BillingPeriod, Plan, PlanPrice, PlanVersion, terms_of
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.scopes import scopes_of

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.plans")
_LIST_PLANS: Final = _QUERIES["list_plans"]
_LIST_VERSIONS: Final = _QUERIES["list_versions"]
_LOCK_PLAN: Final = _QUERIES["lock_plan"]
_INSERT_PLAN: Final = _QUERIES["insert_plan"]
_INSERT_VERSION: Final = _QUERIES["insert_version"]
_SET_VERSION: Final = _QUERIES["set_version"]
_RETIRE_PLAN: Final = _QUERIES["retire_plan"]


class PlanStore:
    """Lists, sets and retires plans. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_all(self) -> list[PlanVersion]:
        """Return the newest version of every plan, in the order in which they are shown."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_PLANS)
        return [read_version(row) for row in rows]

    async def list_versions(self, plan_id: str) -> list[PlanVersion]:
        """Return the history of a plan, newest first. Raises NotFound."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_VERSIONS, plan_id)
        if not rows:
            raise plan_not_found(plan_id)
        return [read_version(row) for row in rows]

    async def get(self, plan_id: str) -> PlanVersion:
        """Return the newest version of a plan. Raises NotFound."""
        async with acquire(self._pool) as connection:
            return await get_plan(connection, plan_id)

    async def put(self, actor: Actor, plan: Plan, at_once: bool = False) -> bool:
        """Create a plan or change its terms; return whether it is new.

        New terms are a new version, which accounts in a period of a subscription get with their
        next one, or now where `at_once` says so. Other accounts have no periods, and get it now. A
        retired plan is offered again.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            is_new = await connection.fetchval(_INSERT_PLAN, plan.id) is not None
            before = None if is_new else await connection.fetchrow(_LOCK_PLAN, plan.id)
            known = None if before is None else read_version(before)
            changes = changes_between({} if known is None else terms_of(known), terms_of(plan))
            version = 1 if known is None else known.current_version
            if changes and known is not None:
                version += 1
            if changes:
                await connection.execute(
                    _INSERT_VERSION,
                    plan.id,
                    version,
                    actor.name,
                    plan.name,
                    plan.markup_bps,
                    *_price_columns(plan.price),
                    plan.position,
                    plan.is_most_popular,
                    plan.max_keys,
                    sorted(plan.self_service_scopes),
                    *rate_columns(plan.rates),
                    *rate_columns(plan.key_rates),
                    plan.own_key_fee_bps,
                )
            is_moved = known is None or (at_once and known.least_version < version)
            if changes or is_moved or (known is not None and known.retired_at is not None):
                await connection.execute(_SET_VERSION, plan.id, version, at_once)
                detail = {**changes, "version": version, "at_once": at_once}
                event = AuditEvent("plan.set", f"plan:{plan.id}", None, detail)
                await write_audit(connection, actor, event)
        return is_new

    async def retire(self, actor: Actor, plan_id: str) -> PlanVersion:
        """Sell a plan no more; accounts keep it. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchval(_RETIRE_PLAN, plan_id) is not None:
                event = AuditEvent("plan.retired", f"plan:{plan_id}")
                await write_audit(connection, actor, event)
            return await get_plan(connection, plan_id)


async def get_plan(connection: PostgresConnection, plan_id: str) -> PlanVersion:
    """Return the newest version of a plan. Raises NotFound."""
    rows = await connection.fetch(_LIST_VERSIONS, plan_id)
    if not rows:
        raise plan_not_found(plan_id)
    return read_version(rows[0])


def plan_not_found(plan_id: str) -> NotFound:
    """Return the one error for a plan that does not exist."""
    return NotFound(f"there is no plan '{plan_id}'")


def read_version(row: "Record") -> PlanVersion:
    """Return the version of a row."""
    return from_row(
        PlanVersion,
        row,
        id=row["plan_id"],
        price=_price(row),
        rates=rates_of(row),
        key_rates=rates_of(row, "key_"),
        self_service_scopes=scopes_of(row["self_service_scopes"]),
    )


def _price(row: "Record") -> PlanPrice | None:
    if row["price_picos"] is None:
        return None
    return PlanPrice(
        row["price_picos"],
        BillingPeriod(row["period"]),
        row["included_picos"],
        row["trial_days"],
        row["trial_picos"],
    )


def _price_columns(price: PlanPrice | None) -> tuple[object, ...]:
    if price is None:
        return (None, None, 0, 0, 0)
    return (
        price.amount_picos,
        price.period.value,
        price.included_picos,
        price.trial_days,
        price.trial_picos,
    )
