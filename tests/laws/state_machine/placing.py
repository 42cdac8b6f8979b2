"""Holds in memory, as place_holds(), release_holds() and the sweep keep them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import groupby
from typing import Final
from uuid import UUID

from meter.errors import BrokenInvariant
from meter.holds.hold import (
    Hold,
    HoldAnswer,
    HoldEnding,
    HoldPlaced,
    HoldRefused,
    HoldRequest,
    HoldState,
    Refusal,
)
from meter.money import MAX_PICOS
from meter.settlement.changes import Ending, SettlementChanges
from tests.laws.state_machine.funds import AccountTables
from tests.laws.state_machine.tables import Account, EndedHold, LiveHold, Lookup

LIFETIME: Final = timedelta(seconds=60)
PATIENCE: Final = timedelta(seconds=15)
FAILED_PATIENCE: Final = timedelta(seconds=4)


class HoldTables(AccountTables):
    """Places holds, and ends each of them once."""

    def place(self, requests: Sequence[HoldRequest]) -> list[HoldAnswer]:
        """As place_holds() does: in the order asked, what each balance covers."""
        return self._transact(partial(self._place, requests))

    def _place(self, requests: Sequence[HoldRequest]) -> list[HoldAnswer]:
        answers: dict[UUID, HoldAnswer] = {}
        by_account = sorted(requests, key=lambda request: request.account_id)
        for account_id, asked in groupby(by_account, key=lambda request: request.account_id):
            account = self.accounts[account_id]
            left = account.balance_picos - account.held_picos
            held, placed = account.held_picos, 0
            for request in asked:
                answer = self._admit(request, left - (held - account.held_picos))
                answers[request.hold_id] = answer
                if isinstance(answer, HoldPlaced):
                    placed += 1
                    held += answer.amount_picos
                    self._insert(self.holds, request.hold_id, self._live(request, answer))
            if placed:
                is_short = account.balance_picos < held
                beyond = (account.overdrawn_picos, account.reversed_picos) if is_short else ()
                self._set_account(account_id, Account(account.balance_picos, held, *beyond))
        return [answers[request.hold_id] for request in requests]

    def _admit(self, request: HoldRequest, left: int) -> HoldAnswer:
        asked = request.estimate
        tokens = asked.max_tokens
        if asked.per_token_picos > 0:
            tokens = min(tokens, (left - asked.fixed_picos) // asked.per_token_picos)
        # An own key without a fee uses no credit, so a debt is not in its way.
        uses_nothing = asked.markup_bps < 0 and not (asked.fixed_picos or asked.per_token_picos)
        if not self._rules.has_guarded_balances:
            tokens = asked.max_tokens
        elif tokens < asked.min_tokens or (left < max(0, asked.fixed_picos) and not uses_nothing):
            least = asked.fixed_picos + asked.per_token_picos * asked.min_tokens
            return HoldRefused(Refusal.INSUFFICIENT, min(least, MAX_PICOS), left)
        amount = asked.fixed_picos + asked.per_token_picos * tokens
        return HoldPlaced(request.hold_id, amount, tokens)

    def _live(self, request: HoldRequest, placed: HoldPlaced) -> LiveHold:
        hold = Hold(
            id=request.hold_id,
            placed_at=self.now,
            account_id=request.account_id,
            credential_id=request.credential_id,
            model_id=request.model_id,
            endpoint=request.endpoint,
            price_id=request.estimate.price_id,
            markup_bps=request.estimate.markup_bps,
            amount_picos=placed.amount_picos,
            flat_cost_picos=request.estimate.flat_cost_picos,
            max_tokens=placed.max_tokens,
            state=HoldState.OPEN,
        )
        return LiveHold(hold, self.now + LIFETIME)

    def release(self, hold_ids: Sequence[UUID], reason: HoldEnding) -> int:
        """As release_holds() does: those that are live end without a charge."""
        return self._transact(partial(self._release, hold_ids, reason))

    def _release(self, hold_ids: Sequence[UUID], reason: HoldEnding) -> int:
        live = [self.holds[one].hold for one in hold_ids if one in self.holds]
        plan = SettlementChanges()
        for hold in live:
            plan.end(hold, HoldState.RELEASED, reason)
        self._end_holds(plan.endings)
        self._move(plan.moves)
        return len(live)

    def expire(self) -> int:
        """As the sweep does: open holds past their limit become unknown, and are asked about."""
        return self._transact(self._expire)

    def _expire(self) -> int:
        overdue = [
            live
            for live in self.holds.values()
            if live.hold.state is HoldState.OPEN and live.expires_at <= self.now
        ]
        for live in overdue:
            unknown = replace(live, hold=replace(live.hold, state=HoldState.UNKNOWN))
            self._put(self.holds, live.hold.id, unknown)
            if live.hold.id not in self.lookups:
                self._put(self.lookups, live.hold.id, Lookup(None, None, self.now + PATIENCE))
        return len(overdue)

    def _end_holds(self, endings: Sequence[Ending]) -> None:
        for ending in endings:
            live = self.holds.get(ending.hold_id)
            if live is None:
                if self._rules.has_unique_endings:
                    raise BrokenInvariant("a hold ended while it was locked")
                continue
            self._take(self.holds, ending.hold_id)
            ended = EndedHold(replace(live.hold, state=ending.state), ending.reason)
            self._insert(self.ended, ending.hold_id, ended)
