"""V2 and V5: nobody overdrew beyond measured excess, and nothing is held for ever."""

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Final

from chaos.books import Account, Books
from chaos.customers import Customer
from chaos.upstream import PICOS_PER_USD
from chaos.verdict import Findings

_CREDITS: Final = frozenset({"grant", "adjustment"})


def check_endings(books: Books, findings: Findings) -> int:
    """No hold is live and no look-up waits; returns how many do."""
    unresolved = findings.require_none("V5", "live holds", (hold.id for hold in books.live))
    live = {hold.id for hold in books.live}
    waiting = [one for one in books.waiting_lookups if one not in live]
    return unresolved + findings.require_none("V5", "look-ups that still wait", waiting)


def check_accounts(
    books: Books, customers: list[Customer], given: dict[str, Decimal], findings: Findings
) -> int:
    """Balances are what the ledger, the holds and the credits say; returns who overdrew."""
    booked, credited = _booked(books)
    held: Counter[str] = Counter()
    for hold in books.live:
        held[hold.account_id] += hold.amount_picos
    ours = [one for one in books.accounts if one.id in {customer.id for customer in customers}]
    wrong = [one.id for one in ours if one.balance_picos != booked[one.id]]
    findings.require_none("V1", "balances that are not the sum of their entries", wrong)
    wrong = [one.id for one in ours if one.held_picos != held[one.id]]
    findings.require_none("V1", "held amounts that are not the sum of live holds", wrong)
    wrong = [one.id for one in ours if credited[one.id] != given[one.id] * PICOS_PER_USD]
    findings.require_none("V8", "credit that is not what was given", wrong)
    return findings.require_none("V2", "overdrawn beyond measured excess", _overdrawn(books, ours))


def _booked(books: Books) -> tuple[Counter[str], Counter[str]]:
    """Return the sums of each customer's entries: of all of them, and of credits only."""
    booked, credited = Counter[str](), Counter[str]()
    for posting in books.postings:
        for entry in posting.entries:
            if entry.ledger_account == "customer":
                booked[entry.account_id] += entry.amount_picos
                if posting.template in _CREDITS:
                    credited[entry.account_id] += entry.amount_picos
    return booked, credited


def _overdrawn(books: Books, accounts: list[Account]) -> list[str]:
    excess: dict[str, int] = defaultdict(int)
    for one in books.usage:
        excess[one.account_id] += one.excess_picos
    return [
        one.id
        for one in accounts
        if one.held_picos - one.balance_picos > min(one.overdrawn_picos, excess[one.id])
    ]
