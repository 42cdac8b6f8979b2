"""The checker has been red: each kind of wrong in otherwise right books is named."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from chaos.books import Account, Batch, Books, Entry, Hold, Posting, Usage
from chaos.checker import Verdict, Witnesses, judge
from chaos.customers import Customer
from chaos.records import Seen
from chaos.upstream import Arrival, BillRow
from chaos.verdict import Findings

HOLD, REQUEST = UUID(int=1), UUID(int=2)
GRANTED, SETTLED = UUID(int=3), UUID(int=4)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
FIRST = hashlib.sha256(b"tollkeeper ledger").digest()
LINES = (
    # Written out by hand: id, booked, template, account, hold, recorded, line, entry, reason.
    f"{GRANTED}|1767355200000000|grant|a||1767355200000000|0|customer|a|1000|8:campaign\n"
    f"{GRANTED}|1767355200000000|grant|a||1767355200000000|1|grants|a|-1000|8:campaign\n",
    f"{SETTLED}|1767355200000000|settlement|a|{HOLD}|1767355200000000|0|customer|a|-110|-\n"
    f"{SETTLED}|1767355200000000|settlement|a|{HOLD}|1767355200000000|1|provider|a|100|-\n"
    f"{SETTLED}|1767355200000000|settlement|a|{HOLD}|1767355200000000|2|revenue|a|10|-\n",
)
SECOND = hashlib.sha256(FIRST + LINES[0].encode()).digest()
LAST = hashlib.sha256(SECOND + LINES[1].encode()).digest()

USAGE = Usage(HOLD, 0, "settlement", "stream", "a", "gen-1", 100, 110, 0)
ENDED = Hold(HOLD, "a", 500, 1_000, REQUEST, "settled", "settled")
ROW = BillRow("gen-1", 100)
SEEN = Seen("tag-1", "a", "good", "h2", None, 0.0, 1.0, 200, "gen-1", str(REQUEST), True)
GRANT = Posting(
    GRANTED, NOON, 1, "grant", "a", None, "campaign", NOON,
    (Entry(0, "customer", "a", 1000), Entry(1, "grants", "a", -1000)),
)  # fmt: skip
SETTLEMENT = Posting(
    SETTLED, NOON, 2, "settlement", "a", HOLD, None, NOON,
    (
        Entry(0, "customer", "a", -110),
        Entry(1, "provider", "a", 100),
        Entry(2, "revenue", "a", 10),
    ),
)  # fmt: skip
BOOKS = Books(
    accounts=[Account("a", 890, 0, 0)],
    live=[],
    ended=[ENDED],
    usage=[USAGE],
    postings=[GRANT, SETTLEMENT],
    stray_entries=0,
    settlements=[],
    batches=[Batch(1, 1, 1, FIRST, SECOND, 1, 2), Batch(1, 2, 2, SECOND, LAST, 1, 3)],
    heads={1: (2, LAST)},
    waiting_lookups=[],
    conflicts=0,
)
WITNESSES = Witnesses(
    customers=[Customer("a", 1_000, False, "key")],
    given={"a": Decimal("0.000000001")},
    seen=[SEEN],
    arrivals=[Arrival("tag-1", str(REQUEST))],
    missed=0,
)


def verdict(
    books: Books = BOOKS, rows: tuple[BillRow, ...] = (ROW,), witnesses: Witnesses = WITNESSES
) -> Verdict:
    return judge(books, list(rows), witnesses, 0, Findings())


def test_right_books_are_found_right() -> None:
    found = verdict()
    assert found.failures == ()
    assert found.is_right
    assert found.settled_by == {"stream": 1}


def with_entry(amount: int) -> Books:
    entries = (replace(SETTLEMENT.entries[0], amount_picos=amount), *SETTLEMENT.entries[1:])
    return replace(BOOKS, postings=[GRANT, replace(SETTLEMENT, entries=entries)])


WRONG_BOOKS: dict[str, tuple[str, Callable[[], Books]]] = {
    "a posting that does not balance": ("V1", lambda: with_entry(-109)),
    "an edited entry": ("V11", lambda: with_entry(-111)),
    "an edited reason": (
        "V11",
        lambda: replace(BOOKS, postings=[replace(GRANT, reason="other"), SETTLEMENT]),
    ),
    "a posting that was taken away": ("V11", lambda: replace(BOOKS, postings=[GRANT])),
    "a batch that was taken away": ("V11", lambda: replace(BOOKS, batches=BOOKS.batches[:1])),
    "a stray entry": ("V1", lambda: replace(BOOKS, stray_entries=1)),
    "a posting that stands twice": (
        "V3",
        lambda: replace(BOOKS, postings=[GRANT, SETTLEMENT, SETTLEMENT]),
    ),
    "a balance that nobody booked": (
        "V1",
        lambda: replace(BOOKS, accounts=[Account("a", 891, 0, 0)]),
    ),
    "held without a hold": ("V1", lambda: replace(BOOKS, accounts=[Account("a", 890, 7, 0)])),
    "overdrawn without excess": (
        "V2",
        lambda: replace(BOOKS, accounts=[Account("a", -5, 0, 5)]),
    ),
    "a settlement that is missing": ("V3", lambda: replace(BOOKS, usage=[])),
    "two settlements of one hold": (
        "V3",
        lambda: replace(BOOKS, usage=[USAGE, USAGE]),
    ),
    "one generation under two holds": (
        "V3",
        lambda: replace(BOOKS, usage=[USAGE, replace(USAGE, hold_id=UUID(int=9))]),
    ),
    "a hold that stands twice": ("V3", lambda: replace(BOOKS, ended=[ENDED, ENDED])),
    "a released hold with a settlement": (
        "V3",
        lambda: replace(BOOKS, ended=[replace(ENDED, state="released")]),
    ),
    "a cost of one pico less": (
        "V4",
        lambda: replace(BOOKS, usage=[replace(USAGE, cost_picos=99)]),
    ),
    "a charge of one pico more": (
        "V4",
        lambda: replace(BOOKS, usage=[replace(USAGE, charge_picos=111)]),
    ),
    "a hold that is still open": (
        "V5",
        lambda: replace(BOOKS, live=[replace(ENDED, id=UUID(int=8), state="open")]),
    ),
    "a look-up that still waits": ("V5", lambda: replace(BOOKS, waiting_lookups=[HOLD])),
    "a request without a hold": ("V6", lambda: replace(BOOKS, ended=[])),
    "a settlement that nobody billed": (
        "V7",
        lambda: replace(
            BOOKS, usage=[USAGE, replace(USAGE, hold_id=UUID(int=9), generation_id="x")]
        ),
    ),
    "another account's charge": (
        "V3",
        lambda: replace(BOOKS, usage=[replace(USAGE, account_id="b")]),
    ),
}


@pytest.mark.parametrize("name", WRONG_BOOKS)
def test_wrong_books_are_found_wrong(name: str) -> None:
    invariant, make = WRONG_BOOKS[name]
    found = verdict(make())
    assert invariant in {failure.invariant for failure in found.failures}
    assert not found.is_right


WRONG_WITNESSES: dict[str, tuple[str, dict[str, Any]]] = {
    "a reply that is on no bill": ("V3", {"seen": [replace(SEEN, generation_id="gen-2")]}),
    "a reply that another paid": ("V3", {"seen": [replace(SEEN, account="b")]}),
    "an arrival without a hold": ("V6", {"arrivals": [Arrival("tag-1", str(UUID(int=7)))]}),
    "a refusal that went up": ("V6", {"seen": [replace(SEEN, refusal="insufficient_credits")]}),
    "arrivals that nobody saw": ("V6", {"missed": 1}),
    "credit that was given twice": ("V8", {"given": {"a": Decimal("0.0000000005")}}),
}


@pytest.mark.parametrize("name", WRONG_WITNESSES)
def test_wrong_witnesses_are_found_wrong(name: str) -> None:
    invariant, changes = WRONG_WITNESSES[name]
    found = verdict(witnesses=replace(WITNESSES, **changes))
    assert invariant in {failure.invariant for failure in found.failures}


def test_a_row_that_nobody_settled_is_lost_and_makes_the_difference() -> None:
    found = verdict(rows=(ROW, BillRow("gen-2", 30)))
    assert (found.bill.lost, found.bill.difference_picos) == (1, -30)
    assert not found.is_right


def test_what_policy_charged_is_told_apart() -> None:
    by_policy = replace(USAGE, source="policy", kind="provisional", generation_id=None)
    found = verdict(replace(BOOKS, usage=[by_policy]))
    assert found.bill.provisional_picos == 100
    assert found.bill.untagged == 0
    assert found.bill.lost == 1


def test_differences_of_corrections_add_up() -> None:
    wrong = replace(USAGE, cost_picos=130, charge_picos=143)
    put_right = replace(
        USAGE, revision=1, kind="correction", source="lookup", cost_picos=-30, charge_picos=-33
    )
    found = verdict(replace(BOOKS, usage=[wrong, put_right]))
    assert found.is_right
    assert found.corrected == 1
