"""The books in memory: the plans of the real store, written under the rules of its SQL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

from meter.errors import BrokenInvariant
from meter.holds.hold import HoldEnding, HoldState
from meter.settlement.booking import Booking, Recorded
from meter.settlement.changes import (
    HoldOnRecord,
    SettlementChanges,
    changes_from_observations,
    changes_from_policy,
)
from meter.settlement.outcome import UnknownReason
from meter.settlement.policy import PolicyDecision
from meter.settlement.settlement_store import distinct_batches
from meter.usage.usage import Observation, Source, TokenCounts
from tests.laws.state_machine.placing import FAILED_PATIENCE, PATIENCE, HoldTables
from tests.laws.state_machine.tables import Lookup


class MemoryBooks(HoldTables):
    """The work of `PostgresHolds`, `PostgresSettlementStore`, `LedgerStore` and the sweep."""

    def settle(self, observations: Sequence[Observation]) -> None:
        """As `PostgresSettlementStore.settle` does."""
        for batch in distinct_batches(observations):
            hold_ids = [observation.hold_id for observation in batch]
            self._transact(
                partial(self._apply, batch, hold_ids, partial(changes_from_observations, batch))
            )

    def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> None:
        """As `PostgresSettlementStore.end_by_policy` does."""
        hold_ids = [decision.hold_id for decision in decisions]
        decide = partial(changes_from_policy, decisions, usual={})
        self._transact(partial(self._apply, decisions, hold_ids, decide))

    def _apply(
        self,
        arrived: Sequence[Observation | PolicyDecision],
        hold_ids: list[UUID],
        to_plan: Callable[[Mapping[UUID, HoldOnRecord]], SettlementChanges],
    ) -> None:
        records = {one: found for one in hold_ids if (found := self._load(one)) is not None}
        self._write(to_plan(records))
        self.arrived.extend(arrived)

    def _load(self, hold_id: UUID) -> HoldOnRecord | None:
        live = self.holds.get(hold_id)
        if live is not None:
            lookup = self.lookups.get(hold_id)
            has_entry = lookup is None or lookup.seen is not None
            return HoldOnRecord(live.hold, self._price, None, live.generation_id, has_entry)
        ended = self.ended.get(hold_id)
        if ended is None:
            return None
        if not self._rules.has_unique_endings:
            return HoldOnRecord(replace(ended.hold, state=HoldState.OPEN), self._price, None)
        return HoldOnRecord(ended.hold, self._price, recorded(self.records.get(hold_id, ())))

    def _write(self, plan: SettlementChanges) -> None:
        for booking in plan.bookings:
            self._record(booking)
        self._end_holds(plan.endings)
        for observation, reason in plan.unknown:
            self._mark_unknown(observation, reason)
        for observation, kind in plan.conflicts:
            self._put(self.conflicts, len(self.conflicts), (observation.hold_id, kind.value))
        for booking in plan.bookings:
            for posting in booking.postings:
                self._post(posting)
        self._move(plan.moves)

    def _record(self, booking: Booking) -> None:
        before = self.records.get(booking.hold.id, ())
        is_known = any(one.revision == booking.revision for one in before)
        if is_known and self._rules.has_unique_endings:
            raise BrokenInvariant("a second usage record with the same revision")
        self._put(self.records, booking.hold.id, (*before, booking))

    def _mark_unknown(self, seen: Observation, reason: UnknownReason) -> None:
        live = self.holds.get(seen.hold_id)
        if live is not None:
            hold = replace(live.hold, state=HoldState.UNKNOWN)
            generation_id = seen.generation_id or live.generation_id
            self._put(
                self.holds, seen.hold_id, replace(live, hold=hold, generation_id=generation_id)
            )
        before = self.lookups.get(seen.hold_id)
        patience = FAILED_PATIENCE if reason is UnknownReason.FAILED else PATIENCE
        asked = Lookup(seen.generation_id, seen, self.now + patience)
        if before is not None:
            asked = replace(
                before,
                generation_id=before.generation_id or seen.generation_id,
                seen=seen,
                deadline_at=asked.deadline_at,
            )
        self._put(self.lookups, seen.hold_id, asked)

    def note(self, hold_id: UUID, generation_id: str, cost_picos: int) -> None:
        """As a provider's report does: it says whom to ask, and never settles by itself."""
        self._transact(partial(self._note, hold_id, generation_id, cost_picos))

    def _note(self, hold_id: UUID, generation_id: str, cost_picos: int) -> None:
        ended = self.ended.get(hold_id)
        is_disputed = False
        if ended is not None:
            bookings = self.records.get(hold_id, ())
            if any(one.observation.source.value == "lookup" for one in bookings):
                return
            is_disputed = ended.reason is HoldEnding.SETTLED
            if is_disputed and sum(one.cost_picos for one in bookings) == cost_picos:
                return
        elif hold_id not in self.holds:
            return
        before = self.lookups.get(hold_id)
        if before is None:
            asked = Lookup(generation_id, None, self.now + PATIENCE, is_disputed)
            self._put(self.lookups, hold_id, asked)
        elif before.generation_id is None:
            asked = replace(before, generation_id=generation_id, deadline_at=self.now + PATIENCE)
            self._put(self.lookups, hold_id, asked)

    def forget_lookup(self, hold_id: UUID) -> None:
        """There is nothing left to find out."""
        self._transact(partial(self._take, self.lookups, hold_id))

    def watch(self, hold_id: UUID) -> None:
        """The record said 0: it is asked for again."""
        watched = replace(self.lookups[hold_id], is_watched=True, is_decided=True)
        self._transact(partial(self._put, self.lookups, hold_id, watched))

    def mark_decided(self, hold_id: UUID) -> None:
        """The policy has decided; the provider may still come up with a record."""
        decided = replace(self.lookups[hold_id], is_decided=True)
        self._transact(partial(self._put, self.lookups, hold_id, decided))


def recorded(bookings: Sequence[Booking]) -> Recorded | None:
    """The books of a request: sums over its usage records, and the youngest of them."""
    if not bookings:
        return None
    last = max(bookings, key=lambda booking: booking.revision)
    tokens = [booking.tokens for booking in bookings]
    return Recorded(
        tokens=TokenCounts(
            prompt=sum(one.prompt for one in tokens),
            completion=sum(one.completion for one in tokens),
            cached=sum(one.cached for one in tokens),
            cache_write=sum(one.cache_write for one in tokens),
            reasoning=sum(one.reasoning for one in tokens),
        ),
        cost_picos=sum(booking.whole_cost_picos for booking in bookings),
        charge_picos=sum(booking.charge_picos for booking in bookings),
        last_revision=last.revision,
        source=last.observation.source,
        is_provisional=last.observation.source is Source.POLICY,
    )
