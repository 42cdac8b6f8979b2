"""The port through which holds end with their charge."""

from collections.abc import Sequence
from typing import Protocol

from meter.settlement.changes import SettlementChanges
from meter.settlement.policy import PolicyDecision
from meter.usage.usage import Observation


class SettlementStore(Protocol):
    """Ends holds with their charge, each exactly once.

    `PostgresSettlementStore` writes the books. `CountingSettlementStore` wraps another store and
    reports the tokens that were used to the limits.

    Both methods raise StoreUnavailable while Postgres is away. A part of the batch may then have
    been applied, never a part of one request; trying the same call again is right in any case,
    because what was applied before counts as a duplicate.
    """

    async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
        """Settle requests that were observed to have ended, and return the committed changes.

        A batch may name a hold several times: later observations then see what the earlier ones
        did, and each transaction returns changes of its own. An observation whose hold is not in
        the books is kept as a conflict; it raises nothing. An observation whose hold or account
        another transaction keeps locked is parked: it is stored, and settled once they are free.
        """
        ...

    async def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> SettlementChanges:
        """End holds by a decision of policy where they are still live, and return the changes.

        A batch names a hold at most once. A decision about a hold that has ended meanwhile is
        counted as a duplicate and changes nothing: the truth takes precedence over a policy.
        Raises RowLocked, and changes nothing, while another transaction keeps a hold locked.
        """
        ...
