"""Finds out what requests used whose usage is unknown: by the provider's record, else by policy.

The queue is in Postgres. A look-up that was begun and not ended, because its meter died, is begun
again; settling is idempotent, so it may be.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from meter.clock import Clock
from meter.errors import (
    BrokenInvariant,
    Outage,
    ProviderUnavailable,
    RowLocked,
    SealBroken,
    UnreadableRecord,
)
from meter.lookups.pending import PendingLookup
from meter.lookups.queue import LookupQueue
from meter.process.crash_points import CrashPoints
from meter.process.periodic import periodic
from meter.settlement.billing_terms import TermsOf, default_terms
from meter.settlement.changes import SettlementChanges
from meter.settlement.policy import PolicyDecision, choose_rule, unseen
from meter.settlement.port import SettlementStore
from meter.usage.usage import Observation, ReportedUsage, Source

TICK_S: Final = 0.25
CONCURRENT_LOOKUPS: Final = 16
BACKOFF_FIRST: Final = timedelta(seconds=1)
BACKOFF_MOST: Final = timedelta(minutes=1)
MOST_DOUBLINGS: Final = 10
# A provider may still come up with a record after a policy has decided.
ASK_AFTER_DECISION_FIRST: Final = timedelta(minutes=1)
ASK_AFTER_DECISION_EVERY: Final = timedelta(hours=1)
ASK_AFTER_DECISION_FOR: Final = timedelta(days=3)
# A record of 0 may be a generation that is not priced yet. Each delay is as long as the time since
# the request became unknown, so that some ten looks fit into the whole time.
WATCH_FIRST: Final = timedelta(seconds=15)
WATCH_FOR: Final = timedelta(hours=2)
# Longer than any outage, and what is refused for so long is refused for good: a policy decides.
OUTAGE_WAITED_FOR: Final = timedelta(days=1)

_log = structlog.get_logger(__name__)

# What one look-up raises that is not about this one.
_NOT_OF_ONE: Final = (Outage, SealBroken, BrokenInvariant)

# Asks the provider with an id for the usage of a generation. None when it knows none by this id;
# raises UnreadableRecord, ProviderUnavailable, StoreUnavailable or SealBroken.
FindUsage = Callable[[str, str], Awaitable[ReportedUsage | None]]
# The same for a request with the own key of an account, which is asked about with this key alone:
# the account, the provider, the generation. None also where the account has no key any more.
FindOwnUsage = Callable[[str, str, str], Awaitable[ReportedUsage | None]]


async def find_nothing(account_id: str, provider: str, generation_id: str) -> None:
    """Return no usage: for installations without own keys."""


class LookupMetrics:
    """The metrics of look-ups."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.outcomes = Counter(
            "tollkeeper_lookups",
            "Look-ups by outcome (found, no_record, unreadable, unavailable, settled_meanwhile,"
            " decided, locked, failed).",
            ["outcome"],
            registry=registry,
        )
        self.decisions = Counter(
            "tollkeeper_policy_decisions",
            "Holds ended by policy, by rule and verdict.",
            ["rule", "verdict"],
            registry=registry,
        )


class LookupWorker:
    """One task of a meter. `per_second` bounds how often this meter asks the provider; 0 is never.

    `count` is told of every plan that was written. `has_reports` says that the provider was told
    to report every generation that it bills; `terms_of` says which providers can be asked at all.
    """

    def __init__(
        self,
        queue: LookupQueue,
        settlements: SettlementStore,
        find_usage: FindUsage,
        clock: Clock,
        metrics: LookupMetrics,
        count: Callable[[SettlementChanges], None],
        crash_points: CrashPoints,
        per_second: float,
        has_reports: bool,
        find_own_usage: FindOwnUsage = find_nothing,
        terms_of: TermsOf = default_terms,
    ) -> None:
        self._queue = queue
        self._settlements = settlements
        self._find_usage = find_usage
        self._find_own_usage = find_own_usage
        self._clock = clock
        self._metrics = metrics
        self._count = count
        self._crash_points = crash_points
        self._per_second = per_second
        self._allowance = 0.0
        self._has_reports = has_reports
        self._terms_of = terms_of

    async def run(self) -> None:
        """Look up until cancelled, through outages of Postgres and of the provider."""
        outages = (Outage, SealBroken)
        await periodic("lookups", self._step, TICK_S, TICK_S, outages, first_after_s=TICK_S)

    async def _step(self) -> None:
        # The allowance grows at the permitted rate, and an idle time does not save up a burst.
        most = max(1.0, self._per_second * TICK_S)
        self._allowance = min(most, self._allowance + self._per_second * TICK_S)
        if self._allowance >= 1:
            self._allowance -= await self.look_up(min(int(self._allowance), CONCURRENT_LOOKUPS))

    async def look_up(self, limit: int) -> int:
        """Take up to `limit` look-ups that are due through one step; returns how many.

        Raises StoreUnavailable or SealBroken; what was not ended is taken up again later.
        """
        pending = await self._queue.claim(limit)
        done = await asyncio.gather(*map(self._find_out, pending), return_exceptions=True)
        for one, outcome in zip(pending, done, strict=True):
            if isinstance(outcome, RowLocked):
                # Only this one needs the row. It comes again when its lease is over.
                self._metrics.outcomes.labels("locked").inc()
            elif isinstance(outcome, Exception) and not isinstance(outcome, _NOT_OF_ONE):
                # It comes again when its lease is over, and holds up no other until then.
                self._note_failure(one, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        return len(pending)

    async def _find_out(self, pending: PendingLookup) -> None:
        can_ask = self._terms_of(pending.provider).has_records
        if pending.is_settled:
            await self._finish(pending, "settled_meanwhile")
        elif pending.generation_id is not None and can_ask:
            await self._ask(pending, pending.generation_id)
        elif not pending.is_live:
            await self._finish(pending, "settled_meanwhile")
        elif pending.is_overdue:
            await self._decide(pending)
            await self._finish(pending, "decided")
        else:
            await self._queue.postpone(pending.hold_id, BACKOFF_FIRST)

    async def _ask(self, pending: PendingLookup, generation_id: str) -> None:
        try:
            if pending.own_key_of is None:
                usage = await self._find_usage(pending.provider, generation_id)
            else:
                usage = await self._find_own_usage(
                    pending.own_key_of, pending.provider, generation_id
                )
        except UnreadableRecord:
            # A record without a cost that can be read is as good as none.
            self._metrics.outcomes.labels("unreadable").inc()
            _log.error("record_unreadable", hold_id=pending.hold_id.hex)
            await self._ask_again(pending)
            return
        except ProviderUnavailable as error:
            self._metrics.outcomes.labels("unavailable").inc()
            if pending.own_key_of is None:
                await self._outlast(pending, error)
            else:
                # A key that its owner ended looks like an outage, and would be one for good.
                await self._ask_again(pending)
            return
        if usage is None:
            self._metrics.outcomes.labels("no_record").inc()
            await self._ask_again(pending)
            return
        self._crash_points.reach("meter.after_lookup")
        # The observation of the log with the usage of the provider, or the usage alone.
        seen = pending.seen or unseen(pending.hold_id, pending.placed_at, Source.LOOKUP)
        await self._settle(
            pending, replace(seen, usage=usage, generation_id=generation_id, source=Source.LOOKUP)
        )

    async def _settle(self, pending: PendingLookup, found: Observation) -> None:
        usage = found.usage
        is_unpriced = usage is not None and not usage.cost_usd and not usage.is_byok
        is_watched = is_unpriced and self._age(pending) < WATCH_FOR
        watch_after = max(WATCH_FIRST, self._age(pending))
        if is_watched:
            # Before the settlement: a meter that dies after it would leave a look-up that seems to
            # be done, and the price that comes later would not be asked for.
            await self._queue.watch(pending.hold_id, watch_after, is_settled=False)
        try:
            committed = await self._settlements.settle([found])
        except _NOT_OF_ONE:
            raise
        except Exception as error:
            # A record that the books cannot take is as good as none.
            self._note_failure(pending, error)
            await self._ask_again(pending)
            return
        for changes in committed:
            self._count(changes)
        if is_watched:
            await self._queue.watch(pending.hold_id, watch_after, is_settled=True)
        else:
            await self._finish(pending, "found")

    async def _outlast(self, pending: PendingLookup, error: ProviderUnavailable) -> None:
        if self._age(pending) >= OUTAGE_WAITED_FOR:
            await self._ask_again(pending)
            return
        delay = max(_backoff(pending), timedelta(seconds=error.retry_after_s or 0))
        await self._queue.postpone(pending.hold_id, delay, is_outage=True)

    async def _ask_again(self, pending: PendingLookup) -> None:
        """Later; once the time to find out is over a policy decides, and then now and again."""
        if not pending.is_overdue:
            await self._queue.postpone(pending.hold_id, _backoff(pending))
        elif not pending.is_decided:
            await self._decide(pending)
            await self._queue.postpone(pending.hold_id, self._pause(pending), is_decided=True)
        elif self._age(pending) < ASK_AFTER_DECISION_FOR:
            await self._queue.postpone(pending.hold_id, self._pause(pending))
        else:
            await self._finish(pending, "decided")

    def _pause(self, pending: PendingLookup) -> timedelta:
        """Return the time until the next look after a decision: ever longer, up to a limit."""
        pause = max(ASK_AFTER_DECISION_FIRST, self._age(pending))
        return min(pause, ASK_AFTER_DECISION_EVERY)

    def _age(self, pending: PendingLookup) -> timedelta:
        return self._clock.now() - pending.created_at

    def _note_failure(self, pending: PendingLookup, error: Exception) -> None:
        self._metrics.outcomes.labels("failed").inc()
        _log.error("lookup_failed", hold_id=pending.hold_id.hex, exc_info=error)

    async def _decide(self, pending: PendingLookup) -> None:
        # The provider reports to us what it bills to our key.
        has_reports = self._has_reports and pending.has_reports and pending.own_key_of is None
        rule = choose_rule(pending.seen, pending.generation_id, has_reports)
        decision = PolicyDecision(pending.hold_id, rule.verdict, rule, pending.seen)
        changes = await self._settlements.end_by_policy([decision])
        if changes.endings:
            self._metrics.decisions.labels(rule.value, rule.verdict.value).inc()
            _log.warning(
                "policy_decided",
                hold_id=pending.hold_id.hex,
                rule=rule.value,
                verdict=rule.verdict.value,
                charge_picos=sum(booking.charge_picos for booking in changes.bookings),
            )
        self._count(changes)

    async def _finish(self, pending: PendingLookup, outcome: str) -> None:
        self._metrics.outcomes.labels(outcome).inc()
        await self._queue.forget(pending.hold_id, pending.generation_id)


def _backoff(pending: PendingLookup) -> timedelta:
    doublings = min(max(pending.attempts - 1, 0), MOST_DOUBLINGS)
    return min(BACKOFF_MOST, BACKOFF_FIRST * (1 << doublings))
