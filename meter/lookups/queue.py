"""The queue of requests whose usage is unknown; in Postgres, so that no restart loses one."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from meter.lookups.pending import LookupsSummary, PendingLookup, ReportedGeneration
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.observation_json import observation_from_json
from meter.usage.endpoints import WITHOUT_TAG

_QUERIES: Final = queries("meter.lookups")
_NOTE_GENERATIONS: Final = _QUERIES["note_generations"]
_NEXT_ACCOUNTS: Final = _QUERIES["next_accounts"]
_CLAIM_LOOKUPS: Final = _QUERIES["claim_lookups"]
_POSTPONE_LOOKUP: Final = _QUERIES["postpone_lookup"]
_WATCH_LOOKUP: Final = _QUERIES["watch_lookup"]
_FORGET_LOOKUP: Final = _QUERIES["forget_lookup"]
_SUMMARISE_LOOKUPS: Final = _QUERIES["summarise_lookups"]

# A look-up that a meter took and did not finish, because it died, is taken over after this time.
LEASE: Final = timedelta(seconds=30)
# Accounts with look-ups that one claim passes by. Those after them come with the next claims.
ACCOUNTS_PASSED: Final = 256
# A missing report counts as evidence only where the provider has reported something since this
# long before the request.
REPORTS_HEARD_WITHIN: Final = timedelta(minutes=15)


async def summarise_lookups(pool: PostgresPool) -> LookupsSummary:
    """Return counts of the waiting look-ups. Raises StoreUnavailable."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(_SUMMARISE_LOOKUPS)
    assert row is not None
    return LookupsSummary(**dict(row))


class LookupQueue:
    """Keeps the look-ups in Postgres, so that several meters share them.

    All methods raise StoreUnavailable during an outage.
    """

    def __init__(self, pool: PostgresPool, terms: LookupTerms, provider_id: str) -> None:
        self._pool = pool
        self._terms = terms
        self._provider_id = provider_id
        # Accounts take turns: the last one that this meter came to.
        self._last_account_id = ""

    async def note(self, reports: Sequence[ReportedGeneration]) -> int:
        """Remember which generations answered which holds; return how many reports were new.

        A report of a hold that is not in the books, or that was settled at the reported cost, is
        ignored. A report only says where to look, and never settles. Idempotent, because
        providers send reports more than once.
        """
        latest = list({report.hold_id: report for report in reports}.values())
        async with acquire(self._pool) as connection:
            noted: int = await connection.fetchval(
                _NOTE_GENERATIONS,
                [report.hold_id for report in latest],
                [report.generation_id for report in latest],
                [report.cost_picos for report in latest],
                self._terms.first_delay,
                self._terms.patience,
                self._provider_id,
            )
        return noted

    async def claim(self, limit: int) -> list[PendingLookup]:
        """Take look-ups that are due; no other meter takes the same ones during LEASE.

        Accounts take turns. What one account waits for does not depend on how many look-ups
        another one has.
        """
        async with acquire(self._pool) as connection:
            accounts = await self._next_accounts(connection, limit)
            if not accounts:
                return []
            rows = await connection.fetch(
                _CLAIM_LOOKUPS,
                limit,
                LEASE,
                self._provider_id,
                REPORTS_HEARD_WITHIN,
                accounts,
                list(WITHOUT_TAG),
            )
        return [
            from_row(
                PendingLookup,
                row,
                seen=None if row["observed"] is None else observation_from_json(row["observed"]),
            )
            for row in rows
        ]

    async def _next_accounts(self, connection: PostgresConnection, limit: int) -> list[str]:
        """Return up to `limit` accounts whose turn it is and that have a look-up that is due."""
        first_after = self._last_account_id
        passed = await connection.fetch(_NEXT_ACCOUNTS, first_after, limit, ACCOUNTS_PASSED)
        due = [row["account_id"] for row in passed if row["is_due"]]
        if len(due) < limit and len(passed) < ACCOUNTS_PASSED and first_after:
            # Everybody after the last account had a turn: begin again, up to that account.
            left = ACCOUNTS_PASSED - len(passed)
            again = await connection.fetch(_NEXT_ACCOUNTS, "", limit - len(due), left)
            passed = [row for row in again if row["account_id"] <= first_after]
            due += [row["account_id"] for row in passed if row["is_due"]]
        self._last_account_id = passed[-1]["account_id"] if passed else ""
        return due

    async def postpone(
        self, hold_id: UUID, delay: timedelta, is_outage: bool = False, is_decided: bool = False
    ) -> None:
        """Make a look-up due again after a delay.

        With `is_outage` its deadline moves by the same delay, so that an outage of the provider
        takes nothing from the time for the look-up.
        """
        async with acquire(self._pool) as connection:
            await connection.execute(_POSTPONE_LOOKUP, hold_id, delay, is_outage, is_decided)

    async def watch(self, hold_id: UUID, delay: timedelta, is_settled: bool) -> None:
        """Ask again after a delay, although a record of 0 settles the request.

        Until `is_settled`, a policy may still decide about the request.
        """
        async with acquire(self._pool) as connection:
            await connection.execute(_WATCH_LOOKUP, hold_id, delay, is_settled)

    async def forget(self, hold_id: UUID, generation_id: str | None) -> None:
        """Delete a look-up that is done, unless a report gave it another generation meanwhile."""
        async with acquire(self._pool) as connection:
            await connection.execute(_FORGET_LOOKUP, hold_id, generation_id)
