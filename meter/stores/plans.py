"""Plans in Postgres."""

from meter.accounts import Plan
from meter.stores.postgres import PostgresPool, acquire, query


class PlanStore:
    """Lists and sets plans. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_all(self) -> list[Plan]:
        """Every plan, in order of its id."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(query("list_plans"))
        return [
            Plan(row["id"], row["name"], row["markup_bps"], row["requests_per_minute"])
            for row in rows
        ]

    async def put(self, plan: Plan) -> bool:
        """Make a plan or change its terms; returns whether it is new."""
        values = (plan.id, plan.name, plan.markup_bps, plan.requests_per_minute)
        async with acquire(self._pool) as connection:
            return bool(await connection.fetchval(query("put_plan"), *values))
