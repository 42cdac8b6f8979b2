"""The verdict of the failover campaign is red for each thing that must not happen."""

import hashlib

import pytest

from chaos.failover.verdict import Booked, Seen, Verdict, by_request
from chaos.upstream import BillRow

KEYS = {"one": "sk-one", "two": "sk-two"}
ANSWERED = Seen("r1", 200, is_whole=True)


def billed(provider: str, cost_picos: int = 70, key: str | None = None) -> BillRow:
    """A row of a bill for the request r1."""
    digest = hashlib.sha256((key or KEYS[provider]).encode()).hexdigest()
    return BillRow(f"g-{provider}", cost_picos, "r1", digest)


def verdict(*booked: Booked, **bills: BillRow) -> Verdict:
    rows = {name: (bills[name],) if name in bills else () for name in KEYS}
    return Verdict((ANSWERED,), by_request(booked), rows, KEYS)


def test_the_provider_that_answered_is_paid_what_it_billed() -> None:
    right = verdict(Booked("r1", "two", 70, is_guess=False), two=billed("two"))
    assert right.failures == []
    assert right.sums("two") == (70, 70)
    assert "200 1" in right.to_text()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (verdict(Booked("r1", "one", 70, is_guess=False), two=billed("two")), "two billed 70"),
        (verdict(Booked("r1", "two", 71, is_guess=False), two=billed("two")), "two billed 70"),
        (verdict(Booked("r1", "two", 70, is_guess=False)), "nobody billed it"),
        (verdict(two=billed("two")), "no hold has ended"),
        (verdict(Booked("r1", None, 0, is_guess=False)), "not charged"),
        (
            verdict(Booked("r1", "two", 70, is_guess=False), one=billed("one"), two=billed("two")),
            "billed by one and two",
        ),
        (
            verdict(Booked("r1", "two", 70, is_guess=False), two=billed("two", key=KEYS["one"])),
            "another key",
        ),
    ],
)
def test_a_wrong_book_is_seen(wrong: Verdict, says: str) -> None:
    assert any(says in failure for failure in wrong.failures), wrong.failures
