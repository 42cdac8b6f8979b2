"""The checker of further providers and own keys has been red, for each kind of wrong."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from chaos.books import Books, Hold, Usage
from chaos.further.check_providers import FurtherBill, check_further
from chaos.further.setting import OwnKey
from chaos.upstream import BillRow
from chaos.verdict import Findings

REQUEST, HOLD_ID = UUID(int=2), UUID(int=1)
HOLD = Hold(HOLD_ID, "a", 500, 1_000, REQUEST, "settled", "settled")
USAGE = Usage(HOLD_ID, 0, "settlement", "stream", "a", None, 100, 110, 0, "direct")
ROW = BillRow("chatcmpl-1", 100, str(REQUEST))
KEY = OwnKey("a", "direct", "sk-own")
OWN_HOLD = replace(HOLD, markup_bps=-10_000)
OWN_USAGE = replace(USAGE, is_own_key=True, charge_picos=0)
OWN_ROW = replace(ROW, key_sha256=KEY.sha256)


def judged(
    usage: Usage | None = USAGE,
    row: BillRow = ROW,
    hold: Hold = HOLD,
    others: Sequence[BillRow] = (),
) -> tuple[FurtherBill, list[str]]:
    """Return the bill and the invariants that do not hold."""
    books = Books([], [], [hold], [usage] if usage else [], [], 0, [], [], {}, [], 0)
    findings = Findings()
    bills = {"direct": [row], "other": list(others)}
    bill = check_further(books, bills, [], [KEY], findings)
    return bill, [failure.invariant for failure in findings.failures]


def test_right_books_are_found_right() -> None:
    assert judged() == (FurtherBill(1, 100, 100, 0, 0), [])
    assert judged(OWN_USAGE, OWN_ROW, OWN_HOLD) == (FurtherBill(1, 100, 100, 0, 1), [])


def test_what_only_a_policy_ended_is_counted_apart() -> None:
    guess = FurtherBill(1, 0, 0, 1, 0)
    assert judged(replace(USAGE, source="policy", cost_picos=70)) == (guess, [])
    assert judged(None, hold=replace(HOLD, state="released", ending="not_billed")) == (guess, [])


@pytest.mark.parametrize(
    ("usage", "row", "hold", "others", "invariants"),
    [
        pytest.param(replace(USAGE, cost_picos=99), ROW, HOLD, (), ["V4"], id="another cost"),
        pytest.param(replace(USAGE, provider="other"), ROW, HOLD, (), ["V4"], id="another one"),
        pytest.param(None, ROW, HOLD, (), ["V4"], id="not settled"),
        pytest.param(USAGE, ROW, HOLD, (ROW,), ["V3", "V4"], id="billed by two"),
        pytest.param(USAGE, replace(ROW, request_id="x"), HOLD, (), ["V6", "V7"], id="no hold"),
        pytest.param(USAGE, OWN_ROW, HOLD, (), ["R11"], id="an own key where ours was chosen"),
        pytest.param(OWN_USAGE, ROW, OWN_HOLD, (), ["R11"], id="our key in place of an own"),
        pytest.param(
            OWN_USAGE, OWN_ROW, replace(OWN_HOLD, account_id="b"), (), ["R11"], id="of another"
        ),
        pytest.param(
            replace(OWN_USAGE, charge_picos=1), OWN_ROW, OWN_HOLD, (), ["V4"], id="charged"
        ),
    ],
)
def test_wrong_books_are_found_wrong(
    usage: Usage | None,
    row: BillRow,
    hold: Hold,
    others: Sequence[BillRow],
    invariants: list[str],
) -> None:
    assert judged(usage, row, hold, others)[1] == invariants
