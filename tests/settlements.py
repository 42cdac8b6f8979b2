"""A settlement store for tests that need none of the books."""

from collections.abc import Sequence
from uuid import UUID

from meter.errors import StoreUnavailable
from meter.settlement.changes import SettlementChanges
from meter.settlement.policy import PolicyDecision
from meter.usage.usage import Observation


class FakeSettlementStore:
    """Implements SettlementStore: fails as told, and remembers what got through."""

    def __init__(self, outages: int = 0, poison: UUID | None = None) -> None:
        self.outages = outages
        self.poison = set() if poison is None else {poison}
        self.asked: list[Observation] = []

    @property
    def settled(self) -> list[UUID]:
        """The holds whose observations got through, in order."""
        return [observation.hold_id for observation in self.asked]

    async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
        """Remember them; raises StoreUnavailable in an outage, ValueError for a poisoned one."""
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("away")
        if self.poison & {observation.hold_id for observation in observations}:
            raise ValueError("poison")
        self.asked += observations
        return [SettlementChanges()]

    async def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> SettlementChanges:
        """Change nothing; raises StoreUnavailable during an outage."""
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("away")
        return SettlementChanges(duplicates=len(decisions))
