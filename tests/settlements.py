"""A settlement store for tests that need none of the books."""

from collections.abc import Sequence
from uuid import UUID

from meter.errors import StoreUnavailable
from meter.settlement.changes import SettlementChanges
from meter.settlement.policy import PolicyDecision
from meter.settlement.settlement_store import distinct_batches
from meter.usage.usage import Observation


class FakeSettlementStore:
    """Implements SettlementStore: fails as told, and remembers what got through."""

    def __init__(self, outages: int = 0, poison: UUID | None = None) -> None:
        self.outages = outages
        self.poison = set() if poison is None else {poison}
        self.asked: list[Observation] = []
        self.ended: set[UUID] = set()

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
        committed = []
        for batch in distinct_batches(observations):
            again = {observation.hold_id for observation in batch} & self.ended
            committed.append(SettlementChanges(duplicates=len(again)))
            self.ended |= {observation.hold_id for observation in batch}
        self.asked += observations
        return committed

    async def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> SettlementChanges:
        """End the holds that are live; raises StoreUnavailable during an outage."""
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("away")
        holds = {decision.hold_id for decision in decisions}
        changes = SettlementChanges(duplicates=len(holds & self.ended))
        self.ended |= holds
        return changes
