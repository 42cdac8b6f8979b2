"""Files of the books: complete, exact, apart by account, and cut short in a way that shows."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter.errors import RowLocked
from meter.exports import export_store, export_stream, horizon
from meter.exports.horizon import find_horizon
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import USD, Books, observed
from tests.meter_api import ADMIN, MeterApi

OWN = "/api/v1/exports"


async def spend(books: Books, account_id: str, requests: int) -> str:
    """Settle so many requests of a new account; returns its key."""
    payer = await books.payer(account_id, 10 * USD)
    held = [await books.held(payer, USD // 100, markup_bps=1_000) for _ in range(requests)]
    now = datetime.now(UTC)
    endings = [
        observed(one, "0.001", started_at=now + timedelta(seconds=number))
        for number, one in enumerate(held)
    ]
    await PostgresSettlementStore(books.pool).settle(endings)
    return payer.plain_key


def read_csv(text: str) -> tuple[list[dict[str, str]], list[str]]:
    """The rows and the last line of a CSV file."""
    header, *lines, end = csv.reader(io.StringIO(text, newline=""))
    assert end[0] == "#end"
    assert {len(line) for line in (header, *lines, end)} == {len(header)}
    return [dict(zip(header, line, strict=True)) for line in lines], end


def read_lines(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows and the end of a file of JSON Lines."""
    *rows, end = [json.loads(line) for line in text.splitlines()]
    return rows, end["end"]


async def test_a_file_has_every_row_over_many_pages(
    api: MeterApi, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_store, "PAGE_ROWS", 2)
    key = await spend(books, "ada", 5)
    answer = await api.as_key(key, f"{OWN}/usage")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    rows, end = read_csv(answer.text)
    assert end[:3] == ["#end", "5", ""]
    assert "provider_cost" not in rows[0]
    assert {row["charge"] for row in rows} == {"0.0011"}
    assert [row["started_at"] for row in rows] == sorted(row["started_at"] for row in rows)
    assert all(row["recorded_at"].endswith("Z") for row in rows)
    answer = await api.as_key(key, f"{OWN}/transactions", format="jsonl")
    posted, end_of_lines = read_lines(answer.text)
    assert end_of_lines == {"rows": 6, "next_cursor": None}
    assert sum(Decimal(row["amount"]) for row in posted) == Decimal("9.9945")
    assert [row["type"] for row in posted] == ["grant", *["settlement"] * 5]
    payments = await api.as_key(key, f"{OWN}/payments", format="jsonl")
    assert read_lines(payments.text) == ([], {"rows": 0, "next_cursor": None})


async def test_administrators_get_all_accounts_with_costs_and_users_only_theirs(
    api: MeterApi, books: Books
) -> None:
    keys = {name: await spend(books, name, 2) for name in ("ada", "bob", "cyd")}
    everything = await api.operator.get(f"{ADMIN}/exports/usage?format=jsonl")
    rows, _ = read_lines(everything.text)
    assert [row["user_id"] for row in rows] == ["ada", "ada", "bob", "bob", "cyd", "cyd"]
    assert {row["provider_cost"] for row in rows} == {"0.001"}
    own, _ = read_lines((await api.as_key(keys["bob"], f"{OWN}/usage", format="jsonl")).text)
    assert {row["user_id"] for row in own} == {"bob"}
    assert len(own) == 2
    of_one = await api.operator.get(f"{ADMIN}/exports/transactions?user_id=cyd&format=jsonl")
    assert {row["user_id"] for row in read_lines(of_one.text)[0]} == {"cyd"}
    assert (await api.operator.get(f"{ADMIN}/exports/usage?user_id=eve")).status_code == 404
    refused = await api.as_key(keys["bob"], f"{ADMIN}/exports/usage")
    assert refused.status_code == 403


@pytest.mark.parametrize("kind", ["usage", "transactions"])
async def test_a_file_that_reaches_its_limit_goes_on_with_its_cursor(
    api: MeterApi, books: Books, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("ada", "bob"):
        await spend(books, name, 3)
    path = f"{ADMIN}/exports/{kind}?format=jsonl"
    whole, _ = read_lines((await api.operator.get(path)).text)
    monkeypatch.setattr(api.app.state.exports, "_most_rows", 2)
    parts: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        answer = await api.operator.get(path + (f"&cursor={cursor}" if cursor else ""))
        rows, end = read_lines(answer.text)
        assert len(rows) == end["rows"] <= 2
        parts += rows
        cursor = end["next_cursor"]
        if cursor is not None:
            stolen = await api.operator.get(f"{path}&user_id=ada&cursor={cursor}")
            assert stolen.json()["code"] == "invalid_cursor"
    assert parts == whole


async def test_days_are_those_of_utc_and_rows_of_other_days_stay_out(
    api: MeterApi, books: Books
) -> None:
    key = await spend(books, "ada", 1)
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    for kind in ("usage", "transactions"):
        answer = await api.as_key(key, f"{OWN}/{kind}", **{"to": str(yesterday)})
        assert read_csv(answer.text)[1][1] == "0"
    for period in ({"from": "2026-02-01", "to": "2026-01-31"}, {"from": "2020-01-01"}):
        refused = await api.as_key(key, f"{OWN}/usage", **period)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_period")


async def test_a_spreadsheet_does_not_calculate_what_somebody_wrote(
    api: MeterApi, books: Books
) -> None:
    await api.user("ada")
    for number, reason in enumerate(("=cmd|'/c calc'!A1", "+1", "-1", "@x", 'a "quoted", line')):
        assert (await api.credit("ada", "1.00", str(number), reason)).is_success
    rows, _ = read_csv((await api.operator.get(f"{ADMIN}/exports/transactions")).text)
    assert [row["reason"] for row in rows] == [
        "'=cmd|'/c calc'!A1",
        "'+1",
        "'-1",
        "'@x",
        'a "quoted", line',
    ]


async def test_a_file_that_breaks_off_has_no_last_line_and_gives_its_place_back(
    api: MeterApi, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_store, "PAGE_ROWS", 2)
    key = await spend(books, "ada", 5)
    read, pages = export_store.ExportStore._fetch, 0

    async def failing(*given: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages > 2:
            raise RowLocked("away")
        return await read(*given)

    with monkeypatch.context() as patched:
        patched.setattr(export_store.ExportStore, "_fetch", failing)
        # The transport of the test insists on complete replies.
        with pytest.raises(AssertionError):
            await api.as_key(key, f"{OWN}/usage")
    rows, end = read_csv((await api.as_key(key, f"{OWN}/usage")).text)
    assert (len(rows), end[1]) == (5, "5")
    assert api.registry.get_sample_value("tollkeeper_exports_running") == 0


async def test_files_at_once_are_bounded(
    api: MeterApi, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [await spend(books, name, 1) for name in ("ada", "bob")]
    slots = api.app.state.exports.slots
    monkeypatch.setattr(export_stream, "MOST_OF_ACCOUNTS", 1)
    slots._accounts.add("ada")
    for key in keys:
        refused = await api.as_key(key, f"{OWN}/usage")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_exports")
    assert (await api.operator.get(f"{ADMIN}/exports/usage")).status_code == 200
    slots._accounts.clear()
    assert (await api.as_key(keys[0], f"{OWN}/usage")).status_code == 200


async def test_the_horizon_waits_for_a_position_that_is_not_committed(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(horizon, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(horizon, "MOST_PAUSE_S", 0.0)
    await spend(books, "ada", 1)
    before = await find_horizon(books.pool)
    async with books.pool.acquire() as late:
        transaction = late.transaction()
        await transaction.start()
        # The late writer draws its position first, another one commits after it.
        await late.execute("LOCK TABLE usage_rows IN ROW EXCLUSIVE MODE")
        drawn = await late.fetchval("SELECT nextval('postings_position')")
        await spend(books, "bob", 1)
        with pytest.raises(RowLocked):
            await find_horizon(books.pool)
        await transaction.commit()
    after = await find_horizon(books.pool)
    assert before < drawn < after
