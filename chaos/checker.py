"""The independent checker: the bill, Postgres, Envoy's file log and the clients, side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from chaos.books import Books, read_books
from chaos.check_bill import (
    Bill,
    check_arrivals,
    check_bill,
    check_charges,
    check_clients,
    check_holds,
)
from chaos.check_funds import check_accounts, check_endings
from chaos.check_ledger import check_chain, check_immutable, check_postings
from chaos.check_log import check_log, read_log
from chaos.customers import Customer
from chaos.further.check_providers import FurtherBill, check_further
from chaos.further.setting import OwnKey
from chaos.records import Seen
from chaos.stack import ChaosStack
from chaos.upstream import Arrival, BillRow, read_bill
from chaos.verdict import Failure, Findings


@dataclass(frozen=True, slots=True)
class Witnesses:
    """The evidence from outside Postgres. `missed` arrivals were forgotten before a look.

    `has_reports` says that the upstream reported what it billed. `further_bills` are the bills of
    other providers, and `own_keys` the keys that accounts have stored.
    """

    customers: list[Customer]
    given: dict[str, Decimal]
    seen: list[Seen]
    arrivals: list[Arrival]
    missed: int
    has_reports: bool = True
    further_bills: Mapping[str, Sequence[BillRow]] = field(default_factory=dict)
    own_keys: Sequence[OwnKey] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings, and the figures that go into the table."""

    failures: tuple[Failure, ...]
    bill: Bill
    further: FurtherBill
    bill_rows: int
    unresolved: int
    overdrawn: int
    excess_picos: int
    settled_by: dict[str, int]
    corrected: int
    late: int
    voided: int
    conflicts: int
    postings: int
    log_lines: int

    @property
    def is_right(self) -> bool:
        """True if every invariant holds and nothing is unaccounted for."""
        return not self.failures and self.bill.difference_picos == 0


async def check(stack: ChaosStack, witnesses: Witnesses, kept: Path) -> Verdict:
    """Compare everything with everything."""
    books, findings = await read_books(stack), Findings()
    rows = read_bill(stack.bill)
    await check_immutable(stack, findings)
    log_lines = check_log(books, read_log(stack, kept), findings)
    return judge(books, rows, witnesses, log_lines, findings)


def judge(
    books: Books, rows: list[BillRow], witnesses: Witnesses, log_lines: int, findings: Findings
) -> Verdict:
    """The same without any I/O."""
    check_postings(books, findings)
    check_chain(books, findings)
    check_holds(books, findings)
    check_charges(books, findings)
    unresolved = check_endings(books, findings)
    bill = check_bill(books, rows, findings, witnesses.has_reports)
    further = check_further(books, witnesses.further_bills, rows, witnesses.own_keys, findings)
    overdrawn = check_accounts(books, witnesses.customers, witnesses.given, findings)
    check_clients(books, rows, witnesses.seen, findings)
    check_arrivals(books, witnesses.arrivals, witnesses.seen, findings)
    missed = ["arrivals"] * bool(witnesses.missed)
    findings.require_none("V6", f"{witnesses.missed} arrivals that nobody looked at", missed)
    first = [one for one in books.usage if one.revision == 0]
    return Verdict(
        failures=tuple(findings.failures),
        bill=bill,
        further=further,
        bill_rows=len(rows),
        unresolved=unresolved,
        overdrawn=overdrawn,
        excess_picos=sum(one.excess_picos for one in books.usage),
        settled_by=dict(Counter(one.source for one in first)),
        corrected=len(books.usage) - len(first),
        late=sum(one.kind == "late" for one in first),
        voided=sum(hold.state != "settled" for hold in books.ended),
        conflicts=books.conflicts,
        postings=len(books.postings),
        log_lines=log_lines,
    )
