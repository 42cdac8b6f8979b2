"""V3, V4, V6 and V7 for further providers, and whose key paid for what.

They name no costs and keep no records, so that a request whose usage never arrived is ended by a
policy; such requests are counted apart.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from chaos.books import Books, Usage
from chaos.check_bill import VOIDS
from chaos.further.setting import OwnKey
from chaos.upstream import BillRow
from chaos.verdict import Findings


@dataclass(frozen=True, slots=True)
class FurtherBill:
    """The bills of further providers beside the books, in rows and pico-dollars.

    `guessed_rows` were ended by a policy alone, and are in no sum. `own_rows` were paid with keys
    of accounts, at any provider.
    """

    rows: int
    billed_picos: int
    settled_picos: int
    guessed_rows: int
    own_rows: int


def check_further(
    books: Books,
    bills: Mapping[str, Sequence[BillRow]],
    default_rows: Sequence[BillRow],
    own_keys: Sequence[OwnKey],
    findings: Findings,
) -> FurtherBill:
    """Compare the bills of further providers with the books, by request id."""
    records: dict[UUID, list[Usage]] = defaultdict(list)
    for one in books.usage:
        records[one.hold_id].append(one)
    holds = {str(hold.request_id): hold for hold in books.holds}
    rows = [(provider, row) for provider, bill in bills.items() for row in bill]
    billed = Counter(row.request_id for _, row in rows)
    findings.require_none(
        "V3", "billed by two providers", [one for one, count in billed.items() if count > 1]
    )
    findings.require_none(
        "V6", "billed without a hold", [one for one in billed if one not in holds]
    )
    wrong, guessed = [], 0
    billed_picos = settled_picos = 0
    for provider, row in rows:
        hold = holds.get(str(row.request_id))
        if hold is None:
            continue
        found = records[hold.id]
        if any(one.source == "policy" for one in found) or (not found and hold.ending in VOIDS):
            guessed += 1
            continue
        cost_picos = sum(one.cost_picos for one in found)
        billed_picos += row.cost_picos
        settled_picos += cost_picos
        if {one.provider for one in found} != {provider} or cost_picos != row.cost_picos:
            wrong.append(f"{row.request_id} of {provider}")
    findings.require_none("V4", "settled at another cost or provider than billed", wrong)
    unbilled = [
        hold.id
        for request_id, hold in holds.items()
        if request_id not in billed
        and any(one.provider in bills and one.source != "policy" for one in records[hold.id])
    ]
    findings.require_none("V7", "settlements of further providers without a bill row", unbilled)
    every = [*default_rows, *(row for _, row in rows)]
    own_rows = _check_keys(books, every, own_keys, findings)
    return FurtherBill(len(rows), billed_picos, settled_picos, guessed, own_rows)


def _check_keys(
    books: Books, rows: Sequence[BillRow], own_keys: Sequence[OwnKey], findings: Findings
) -> int:
    """A request is paid with the own key of its account, or with ours; return how many with own."""
    owners = {one.sha256: one.account_id for one in own_keys}
    holds = {str(hold.request_id): hold for hold in books.holds}
    # A markup below zero marks a hold of a request that goes out with an own key.
    paid_by = {
        str(row.request_id): owners.get(row.key_sha256)
        for row in rows
        if str(row.request_id) in holds
    }
    foreign = [
        request_id
        for request_id, owner in paid_by.items()
        if owner != (holds[request_id].account_id if holds[request_id].markup_bps < 0 else None)
    ]
    findings.require_none("R11", "paid with the key of somebody else", foreign)
    charged = [one.hold_id for one in books.usage if one.is_own_key and one.charge_picos]
    findings.require_none("V4", "own keys without a fee that were charged", charged)
    return sum(owner is not None for owner in paid_by.values())
