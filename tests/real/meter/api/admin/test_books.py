"""The books as administrators see them through the meter API: plans, holds, models, the ledger."""

from typing import Any

import asyncpg

from meter.ledger.verification import INVARIANTS
from meter.ledger.whole_books import check_books
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import (
    MODEL,
    USD,
    Books,
    disable_protection,
    observed,
    offered,
    without_protection,
)
from tests.meter_api import ADMIN, MeterApi, every_page, meter_api
from tests.servers import Database


async def test_plans_are_made_and_changed(api: MeterApi) -> None:
    path = f"{ADMIN}/plans/gold"
    unlimited = {
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "concurrent_requests": None,
        "requests_per_day": None,
        "requests_per_month": None,
    }
    free = {
        "price": None,
        "position": 0,
        "is_most_popular": False,
        "own_key_fee_bps": 0,
        "retired_at": None,
    }
    terms: dict[str, Any] = {
        "name": "Gold",
        "markup_bps": 6000,
        **unlimited,
        "requests_per_minute": 60,
        "key_limits": {**unlimited, "concurrent_requests": 4},
        "max_keys": 3,
        "self_service_scopes": ["inference", "keys:write"],
    }
    made = await api.operator.put(path, json=terms)
    assert (made.status_code, made.json()) == (
        201,
        {"id": "gold", "version": 1, **terms, **free},
    )
    changed = await api.operator.put(path, json={"name": "Gold", "markup_bps": 5000})
    terms = {
        "name": "Gold",
        "markup_bps": 5000,
        **unlimited,
        "key_limits": unlimited,
        "max_keys": 100,
        "self_service_scopes": ["inference", "keys:write", "models:read", "usage:read"],
    }
    assert (changed.status_code, changed.json()) == (
        200,
        {"id": "gold", "version": 2, **terms, **free},
    )
    listed = (await api.operator.get(f"{ADMIN}/plans")).json()["data"]
    assert [plan["id"] for plan in listed] == [
        *("gold", "standard", "unlimited"),
        *("trial", "starter", "professional", "enterprise"),
    ]
    for plan_id, body in (
        ("Gold", terms),
        ("gold", {**terms, "markup_bps": 1_000_001}),
        ("gold", {**terms, "requests_per_minute": 0}),
        ("gold", {**terms, "key_limits": {"requests_per_minute": 0}}),
        ("gold", {**terms, "max_keys": -1}),
        ("gold", {**terms, "self_service_scopes": ["admin:read"]}),
        ("gold", {**terms, "self_service_scopes": ["everything"]}),
        ("gold", {"name": "Gold"}),
    ):
        refused = await api.operator.put(f"{ADMIN}/plans/{plan_id}", json=body)
        assert refused.status_code == 422


async def test_live_holds_are_counted_and_listed(api: MeterApi, books: Books) -> None:
    summary = (await api.operator.get(f"{ADMIN}/holds/summary")).json()
    assert summary == {
        "open": 0,
        "unknown": 0,
        "oldest_open_seconds": None,
        "unknown_by_reason": {},
    }
    payer = await books.payer("ada", 5 * USD)
    placed = [await books.held(payer, USD // 10) for _ in range(5)]
    await PostgresSettlementStore(books.pool).settle([observed(placed[0], usage=None)])
    summary = (await api.operator.get(f"{ADMIN}/holds/summary")).json()
    assert (summary["open"], summary["unknown"]) == (4, 1)
    assert summary["oldest_open_seconds"] >= 0
    assert summary["unknown_by_reason"] == {"no_usage": 1}
    (unknown,) = await every_page(api.operator, f"{ADMIN}/holds", state="unknown")
    assert (unknown["id"], unknown["generation_id"]) == (placed[0].hex, "gen-1")
    assert (unknown["amount"], unknown["unknown_reason"]) == ("0.10", "no_usage")
    rows = await every_page(api.operator, f"{ADMIN}/holds", limit=2)
    assert [row["id"] for row in rows] == [hold_id.hex for hold_id in placed]
    refused = await api.operator.get(f"{ADMIN}/holds", params={"state": "settled"})
    assert refused.status_code == 422


async def test_models_are_listed_for_openai_clients(api: MeterApi) -> None:
    for path in ("/v1/models", "/api/v1/llm/models"):
        listed = await api.anybody.get(path)
        assert listed.json()["object"] == "list"
        (model,) = listed.json()["data"]
        assert (model["id"], model["object"], model["owned_by"]) == (MODEL, "model", "openai")
        assert model["created"] == 1_700_000_000
        assert model["pricing"] == {
            "prompt": "0.00000015",
            "completion": "0.0000006",
            "request": "0",
            "image": "0",
            "web_search": "0",
            "internal_reasoning": "0",
        }
        for written in (MODEL, MODEL.replace("/", "%2F")):
            assert (await api.anybody.get(f"{path}/{written}")).json() == model
        missing = await api.anybody.get(f"{path}/openai/none")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"
        assert set(missing.json()["error"]) == {"message", "type", "code", "param"}
        kept = await api.anybody.get(path, headers={"If-None-Match": listed.headers["etag"]})
        assert (kept.status_code, kept.content) == (304, b"")


async def test_a_new_price_is_shown_and_an_old_model_is_not(books: Books) -> None:
    catalogue = PostgresCatalogue(books.pool)
    await catalogue.save("openrouter", [offered(), offered("acme/new", prompt_picos=1)])
    await catalogue.save("openrouter", [offered(prompt_picos=2_000_000)])
    async with meter_api(books.pool) as api:
        (model,) = (await api.anybody.get("/v1/models")).json()["data"]
        assert (model["id"], model["pricing"]["prompt"]) == (MODEL, "0.000002")


async def test_the_ledger_is_verified(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 5 * USD)
    settlements = PostgresSettlementStore(books.pool)
    for cost in ("0.10", "0.20", "1.50", "0.001"):
        hold_id = await books.held(payer, USD, markup_bps=2_000)
        await settlements.settle([observed(hold_id, cost)])
    await books.held(payer, USD // 10)
    verification = (await api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert verification["ok"], verification["failures"]
    assert verification["provider_cost_total"] == "1.801"
    assert verification["charge_total"] == "2.1612"
    assert verification["excess_total"] == "0.80"
    assert verification["checked"] == {
        "postings": 6,
        "entries": 16,
        "accounts": 1,
        "holds": 5,
        "usage_records": 4,
    }
    assert (verification["open_holds"], verification["stale_open_holds"]) == (1, 0)


# What is broken by whom may do anything, and the check that must notice.
_FALSE_CREDIT = """
    INSERT INTO posting_rows (id, booked_at, batch, template, account_id, recorded_at)
        VALUES ('00000000-0000-0000-0000-000000000001', now(), 1, 'grant', 'ada', now());
    INSERT INTO entry_rows (posting_id, booked_at, line, ledger_account, account_id, amount_picos)
        VALUES ('00000000-0000-0000-0000-000000000001', now(), 0, 'customer', 'ada', 7),
               ('00000000-0000-0000-0000-000000000001', now(), 1, 'grants', 'ada', -7);
    UPDATE accounts SET balance_picos = balance_picos + 7;
"""
_BREAKS = {
    "an entry of one side": (
        "postings_balance",
        "UPDATE entry_rows SET amount_picos = amount_picos - 1 WHERE ledger_account = 'provider'",
    ),
    "an entry of somebody else": (
        "entries_belong",
        "UPDATE entry_rows SET account_id = 'bob' WHERE ledger_account = 'provider'",
    ),
    "entries without their posting": (
        "entries_belong",
        "DELETE FROM posting_rows WHERE template = 'grant'",
    ),
    "a balance": ("balances", "UPDATE accounts SET balance_picos = balance_picos + 1"),
    "what is held": ("held", "UPDATE accounts SET held_picos = held_picos + 1"),
    "a live hold": ("held", "DELETE FROM holds"),
    "what is overdrawn": (
        "available",
        "UPDATE accounts SET overdrawn_picos = overdrawn_picos + 1000000000000",
    ),
    "a second settlement": (
        "one_settlement",
        "UPDATE posting_rows SET template = 'settlement' WHERE template = 'grant'",
    ),
    "a measurement": ("charges", "UPDATE usage_rows SET charge_picos = charge_picos + 1"),
    "no measurement": ("charges", "DELETE FROM usage_rows"),
    "another ending": ("endings", "UPDATE ended_hold_rows SET state = 'released'"),
    "no ending": ("endings", "DELETE FROM ended_hold_rows"),
    "another kind": ("endings", "UPDATE usage_rows SET kind = 'late'"),
    "live and ended": (
        "endings",
        "UPDATE ended_hold_rows SET id = (SELECT id FROM holds)",
    ),
    "balanced entries": ("chain", "UPDATE entry_rows SET amount_picos = 2 * amount_picos"),
    "a reason": ("chain", "UPDATE posting_rows SET reason = 'planted' WHERE template = 'grant'"),
    "a time": ("chain", "UPDATE posting_rows SET recorded_at = recorded_at + interval '1 us'"),
    "a posting added": ("chain", _FALSE_CREDIT),
    "a posting without entries": (
        "chain",
        "INSERT INTO posting_rows (id, booked_at, batch, template, account_id, recorded_at) "
        "VALUES (gen_random_uuid(), now(), 1, 'grant', 'ada', now())",
    ),
    "a posting taken away": (
        "chain",
        "DELETE FROM entry_rows WHERE ledger_account IN ('customer', 'grants'); "
        "DELETE FROM posting_rows WHERE template = 'grant'",
    ),
    "a posting in another batch": ("chain", "UPDATE posting_rows SET batch = 2"),
    "the first batch gone": ("chain", "DELETE FROM ledger_batches WHERE number = 1"),
    "the youngest batch gone": (
        "chain",
        "DELETE FROM ledger_batches WHERE number = (SELECT max(number) FROM ledger_batches)",
    ),
    "a hash": ("chain", "UPDATE ledger_batches SET hash = sha256('x') WHERE number = 1"),
    "a link": ("chain", "UPDATE ledger_batches SET previous_hash = hash WHERE position = 2"),
    "the head's number": ("chain", "UPDATE ledger_chains SET position = position + 1 WHERE id = 1"),
    "the head's hash": ("chain", "UPDATE ledger_chains SET hash = sha256('x')"),
    "no head": ("chain", "DELETE FROM ledger_chains"),
    "the youngest batch, its rows and its head gone": (
        "chain",
        "CREATE TEMP TABLE last ON COMMIT DROP AS SELECT number, chain, position, previous_hash "
        "FROM ledger_batches ORDER BY number DESC LIMIT 1; "
        "DELETE FROM ledger_batches WHERE number = (SELECT number FROM last); "
        "DELETE FROM entry_rows e USING posting_rows p WHERE p.id = e.posting_id "
        "AND p.batch = (SELECT number FROM last); "
        "DELETE FROM posting_rows WHERE batch = (SELECT number FROM last); "
        "UPDATE ledger_chains SET position = last.position - 1, hash = last.previous_hash "
        "FROM last WHERE id = last.chain",
    ),
    "a checkpoint": ("chain", "UPDATE ledger_checkpoints SET last_batch = last_batch + 1"),
    "a checkpoint gone": ("chain", "DELETE FROM ledger_checkpoints WHERE number = 1"),
    "a sealed sum": ("chain", "UPDATE checkpoint_sums SET customer = customer + 1"),
    "a settlement of one side": (
        "postings_balance",
        "ALTER TABLE settlements DROP CONSTRAINT settlements_check; "
        "UPDATE settlements SET provider_picos = provider_picos + 1",
    ),
    "a settlement's balanced amounts": (
        "chain",
        "UPDATE settlements SET customer_picos = customer_picos - 1, "
        "revenue_picos = revenue_picos + 1",
    ),
    "a settlement of somebody else": ("balances", "UPDATE settlements SET account_id = 'bob'"),
    "tokens of a settlement": ("chain", "UPDATE settlements SET prompt_tokens = 1"),
    "a generation of a settlement": ("chain", "UPDATE settlements SET generation_id = NULL"),
    "the time of a settlement": (
        "chain",
        "UPDATE settlements SET recorded_at = recorded_at + interval '1 us'",
    ),
    "the order of settlements": (
        "chain",
        "UPDATE settlements s SET seq = o.seq FROM settlements o WHERE o.id <> s.id",
    ),
    "a settlement gone": (
        "chain",
        "DELETE FROM settlements WHERE id = (SELECT min(id::text)::uuid FROM settlements); "
        "UPDATE accounts SET balance_picos = (SELECT sum(amount_picos) FROM entries "
        "WHERE ledger_account = 'customer')",
    ),
    "a settlement added": (
        "chain",
        "CREATE TEMP TABLE copied ON COMMIT DROP AS SELECT * FROM settlements LIMIT 1; "
        "UPDATE copied SET id = gen_random_uuid(); INSERT INTO settlements SELECT * FROM copied",
    ),
    "a settlement in another batch": ("chain", "UPDATE settlements SET batch = 1"),
    "a settlement whose hold is live": (
        "endings",
        "UPDATE settlements SET id = (SELECT id FROM holds) "
        "WHERE id = (SELECT min(id::text)::uuid FROM settlements)",
    ),
    "an overdue hold": (
        "limits",
        "UPDATE holds SET expires_at = clock_timestamp() - interval '1 hour'",
    ),
    "a payment without its row": (
        "payments",
        "INSERT INTO credit_postings (posting_id, booked_at, template, reason, amount_picos, "
        "balance_after_picos) VALUES (gen_random_uuid(), now(), 'payment', 'planted', 7, 7)",
    ),
    "a lot without its posting": (
        "lots",
        "INSERT INTO credit_lots (id, account_id, amount_picos, remaining_picos, granted_at, "
        "expires_at) VALUES (gen_random_uuid(), 'ada', 7, 0, now(), now() + interval '1 day')",
    ),
    "a lot that its account does not show": (
        "lots",
        "UPDATE accounts SET next_expiry = now() + interval '1 day'",
    ),
    "sealed usage": (
        "sealed",
        "INSERT INTO dropped_months (kind, month, last_batch) "
        "SELECT 'usage', date_trunc('month', now() AT TIME ZONE 'UTC')::date, 2",
    ),
}


async def test_each_broken_invariant_turns_the_check_red(books: Books, database: Database) -> None:
    """Every one of them, each by a change of its own that is taken back after it was noticed."""
    payer = await books.payer("ada", 5 * USD)
    settled = [await books.held(payer, USD // 10, markup_bps=100) for _ in range(3)]
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(settled[0], "0.05"), observed(settled[1], "0.06")])
    assert (await books.verified()).is_ok
    await settlements.settle([observed(settled[2], "0.20")])
    await books.held(payer, USD)
    assert (await books.verified()).is_ok
    assert {invariant for invariant, _ in _BREAKS.values()} == set(INVARIANTS)
    owner = await asyncpg.connect(database.owner_dsn)
    for change, (invariant, statement) in _BREAKS.items():
        broken = owner.transaction(isolation="repeatable_read")
        await broken.start()
        await disable_protection(owner)
        await owner.execute(statement)
        checked = (await check_books(owner)).verification
        failures = {one.invariant: one for one in checked.failures}
        await broken.rollback()
        assert invariant in failures, change
        assert failures[invariant].count >= 1
        assert failures[invariant].sample_ids
    await owner.close()
    assert (await books.verified()).is_ok


async def test_broken_books_are_told(api: MeterApi, books: Books, database: Database) -> None:
    await books.payer("ada", 5 * USD)
    await without_protection(database, "UPDATE entry_rows SET amount_picos = 2 * amount_picos")
    verification = (await api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert not verification["ok"]
    failures = {failure["invariant"]: failure for failure in verification["failures"]}
    assert set(failures) == {"balances", "chain"}
    assert failures["balances"]["sample_ids"] == ["ada"]
    assert failures["chain"]["sample_ids"] == ["1"]
