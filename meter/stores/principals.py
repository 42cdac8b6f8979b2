"""The identities behind credentials, in Postgres."""

from meter.accounts import Principal
from meter.stores.postgres import PostgresPool, acquire, query


class PostgresPrincipals:
    """Implements `meter.ports.Principals`."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def find_principal(self, digest: bytes) -> Principal | None:
        """The principal of a live credential; None when unknown, revoked or expired alike."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(query("find_principal"), digest)
        if row is None:
            return None
        allowed = row["allowed_models"]
        return Principal(
            credential_id=row["credential_id"],
            account_id=row["account_id"],
            allowed_models=None if allowed is None else frozenset(allowed),
            markup_bps=row["markup_bps"],
            requests_per_minute=row["requests_per_minute"],
            is_suspended=row["is_suspended"],
        )
