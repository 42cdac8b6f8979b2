"""Key, credit and generations in the shape of OpenRouter, to the last digit."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from meter.holds.hold import HoldPlaced
from meter.money import own_key_markup
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import MODEL, USD, Books, Payer, observed
from tests.meter_api import MeterApi

REQUEST_ID = UUID("5f0c2f3a-7d1e-4b7a-9a52-0d4c3b2a1908")


def now() -> datetime:
    return datetime.now(UTC)


async def asked(
    books: Books,
    payer: Payer,
    cost: str,
    request_id: UUID | None = None,
    markup_bps: int = 2_000,
    **changes: Any,
) -> UUID:
    """Let a request of this payer be settled, by default with a markup of a fifth."""
    request = replace(books.request(payer, USD, markup_bps=markup_bps), request_id=request_id)
    placed = await books.holds.place(request)
    assert isinstance(placed, HoldPlaced)
    if "started_at" in changes:
        moved = "UPDATE holds SET created_at = $2, expires_at = $2 WHERE id = $1"
        await books.pool.execute(moved, placed.hold_id, changes["started_at"])
    seen = observed(placed.hold_id, cost, **{"started_at": now(), **changes})
    await PostgresSettlementStore(books.pool).settle([seen])
    return placed.hold_id


async def generation(api: MeterApi, payer: Payer, asked_id: str) -> dict[str, Any]:
    answer = await api.as_key(payer.plain_key, "/api/v1/generation", id=asked_id)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = json.loads(answer.text, parse_float=Decimal)["data"]
    return data


async def test_a_request_is_found_by_the_ids_of_its_reply(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 5 * USD)
    began_at = now() - timedelta(days=3)
    old, plain = f"gen-{int(began_at.timestamp())}-abc", "chatcmpl-7"
    await asked(books, payer, "0.25", generation_id=old, started_at=began_at)
    await asked(books, payer, "0.000000000123", REQUEST_ID, generation_id=plain, is_streaming=True)
    found = await generation(api, payer, plain)
    assert found == await generation(api, payer, str(REQUEST_ID))
    assert (found["id"], found["request_id"], found["model"]) == (plain, str(REQUEST_ID), MODEL)
    # Ten digits behind the point and more: no float on the way.
    assert found["provider_cost"] == Decimal("0.000000000123")
    assert found["charge"] == found["total_cost"] == found["usage"] == Decimal("0.000000000148")
    assert (found["tokens_prompt"], found["tokens_completion"]) == (10, 20)
    assert (found["cost_source"], found["settled_by"]) == ("provider", "stream")
    assert (found["provider_name"], found["is_byok"], found["streamed"]) == (
        "openrouter",
        False,
        True,
    )
    # An id that begins with its time is found however long ago that was.
    found = await generation(api, payer, old)
    assert (found["charge"], found["request_id"]) == (Decimal("0.3"), None)


async def test_a_correction_counts_and_a_free_request_is_found(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 5 * USD)
    settlements = PostgresSettlementStore(books.pool)
    hold_id = await asked(books, payer, "0.10", REQUEST_ID, generation_id="one")
    truth = observed(hold_id, "0.15", started_at=now(), generation_id="one", source=Source.LOOKUP)
    await settlements.settle([truth])
    found = await generation(api, payer, "one")
    assert (found["provider_cost"], found["charge"]) == (Decimal("0.15"), Decimal("0.18"))
    assert found["settled_by"] == "lookup"
    # No ordinary settlement: its request id is in the hold that ended.
    own = uuid4()
    await asked(books, payer, "0.25", own, own_key_markup(0), generation_id="two")
    found = await generation(api, payer, str(own))
    assert (found["id"], found["charge"], found["is_byok"]) == ("two", 0, True)
    assert (found["provider_cost"], found["upstream_inference_cost"]) == (0, Decimal("0.25"))


async def test_what_is_not_settled_or_of_others_is_not_there(api: MeterApi, books: Books) -> None:
    ada, bob = await books.payer("ada", 5 * USD), await books.payer("bob", 5 * USD)
    await asked(books, ada, "0.25", REQUEST_ID, generation_id="chatcmpl-7")
    running = replace(books.request(bob, USD), request_id=uuid4())
    await books.holds.place(running)
    answers = {
        (await api.as_key(bob.plain_key, "/api/v1/generation", id=asked_id)).text
        for asked_id in ("chatcmpl-7", str(REQUEST_ID), str(running.request_id), "gen-1-x")
    }
    assert len(answers) == 1
    error = json.loads(answers.pop())["error"]
    assert (error["code"], error["metadata"]["error_code"]) == (404, "generation_not_found")
    assert (await api.anybody.get("/api/v1/generation?id=chatcmpl-7")).status_code == 401
    for wrong in ("", "a b", "x" * 201):
        answer = await api.as_key(bob.plain_key, "/api/v1/generation", id=wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, 422)


async def test_a_transaction_names_the_reply_that_it_paid_for(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 5 * USD)
    await asked(books, payer, "0.25", REQUEST_ID, generation_id="chatcmpl-7")
    settled, granted = (await api.as_key(payer.plain_key, "/api/v1/transactions")).json()["data"]
    assert (settled["generation_id"], settled["request_id"]) == ("chatcmpl-7", str(REQUEST_ID))
    assert (granted["generation_id"], granted["request_id"]) == (None, None)
    today = now().date().isoformat()
    for kind in ("usage", "transactions"):
        lines = await api.as_key(
            payer.plain_key,
            f"/api/v1/exports/{kind}",
            **{"from": today, "to": today, "format": "jsonl"},
        )
        assert lines.status_code == 200, lines.text
        (row,) = [row for line in lines.text.splitlines() if "chatcmpl-7" in (row := line)]
        assert json.loads(row)["request_id"] == str(REQUEST_ID)


async def test_the_key_tells_its_usage_and_the_budget_that_is_left(
    api: MeterApi, books: Books
) -> None:
    payer = await books.payer("ada", 5 * USD)
    await asked(books, payer, "0.25")
    data = (await api.as_key(payer.plain_key, "/api/v1/key")).json()["data"]
    assert (data["usage"], data["usage_daily"], data["byok_usage"]) == (0.3, 0.3, 0)
    assert (data["limit"], data["limit_remaining"], data["limit_reset"]) == (None, None, None)
    assert (data["is_management_key"], data["expires_at"]) == (False, None)
    key = await api.key(
        "ada", name="small", budgets={"month": "9.00", "day": "1.00"}, scopes=["usage:read"]
    )
    data = (await api.as_key(key["key"], "/api/v1/key")).json()["data"]
    assert (data["label"], data["usage"]) == ("small", 0)
    assert (data["limit"], data["limit_remaining"], data["limit_reset"]) == (1, 1, "daily")
    blind = await api.key("ada", scopes=["inference"])
    assert (await api.as_key(blind["key"], "/api/v1/key")).status_code == 403


@pytest.mark.parametrize("cost", ["0.25", "0.000000000123"])
async def test_credit_less_usage_is_the_balance(api: MeterApi, books: Books, cost: str) -> None:
    payer = await books.payer("ada", 5 * USD)
    await asked(books, payer, cost)
    answer = await api.as_key(payer.plain_key, "/api/v1/credits")
    funds = json.loads(answer.text, parse_float=Decimal)
    total = funds["data"]
    assert total["total_credits"] == 5
    assert total["total_credits"] - total["total_usage"] == Decimal(funds["balance"])
