"""Accounts and their ledger in memory: `move_balances()`, `LedgerStore` and its checks."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from meter.accounts.account import Funds
from meter.errors import BrokenInvariant
from meter.ledger.credit import check_credit, check_replay
from meter.ledger.postings import Posting, Template, write_off
from meter.settlement.changes import AccountMove
from tests.laws.state_machine.tables import Account, Tables


class AccountTables(Tables):
    """Moves balances, by postings alone."""

    def post_credit(self, posting: Posting) -> int:
        """As `LedgerStore.post_credit` does; returns the balance right after the first time."""
        return self._transact(partial(self._post_credit, posting))

    def _post_credit(self, posting: Posting) -> int:
        known = self.credits.get(posting.id)
        if known is not None:
            check_replay(posting, known[0].customer_picos, known[0].reason)
            return known[1]
        account = self.accounts[posting.account_id]
        check_credit(posting, Funds(account.balance_picos, account.held_picos))
        booked = replace(posting, booked_at=self.now)
        self._post(booked)
        balance = account.balance_picos + posting.customer_picos
        short = max(0, account.held_picos - balance)
        if posting.template is Template.PAYMENT_REVERSAL:
            # It alone may take more than is available: that money has left already.
            taken = max(0, -posting.customer_picos)
            moved = Account(
                balance, account.held_picos, short, min(short, account.reversed_picos + taken)
            )
        else:
            moved = Account(
                balance,
                account.held_picos,
                min(account.overdrawn_picos, short),
                min(account.reversed_picos, short),
            )
        self._set_account(posting.account_id, moved)
        self._insert(self.credits, posting.id, (booked, balance))
        return balance

    def write_off_debt(self, account_id: str) -> None:
        """As `WriteOffStore.write_off_debts` does, with a debt limit of 0."""
        self._transact(partial(self._write_off_debt, account_id))

    def _write_off_debt(self, account_id: str) -> None:
        account = self.accounts[account_id]
        # Debt that releases and settlements have covered meanwhile is forgotten first.
        owed = min(account.reversed_picos, max(0, account.held_picos - account.balance_picos))
        beyond = -account.balance_picos - owed
        if account.overdrawn_picos > 0 and account.held_picos == 0 and beyond > 0:
            self._post(write_off(account_id, self.now, beyond))
            self._set_account(account_id, Account(-owed, 0, owed, owed))

    def _post(self, posting: Posting) -> None:
        self._insert(self.posted, (posting.id, posting.booked_at), posting)
        self.journal.append(posting)

    def _move(self, moves: Mapping[str, AccountMove]) -> None:
        for account_id, move in moves.items():
            before = self.accounts[account_id]
            balance = before.balance_picos - move.charge_picos
            held = before.held_picos - move.freed_picos
            overdrawn = min(before.overdrawn_picos + move.excess_picos, max(0, held - balance))
            self._set_account(account_id, Account(balance, held, overdrawn, before.reversed_picos))

    def _set_account(self, account_id: str, account: Account) -> None:
        available = account.balance_picos - account.held_picos
        is_broken = min(account.held_picos, available + account.overdrawn_picos) < 0
        if is_broken and self._rules.has_guarded_balances:
            raise BrokenInvariant("accounts_never_overspent")
        self._put(self.accounts, account_id, account)
