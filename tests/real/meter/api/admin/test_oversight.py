"""Oversight through the meter API: policy decisions, conflicts, look-ups, drift."""

from meter.money import format_usd
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, assumed_charge, observed, without_protection
from tests.meter_api import ADMIN, MeterApi, every_page
from tests.servers import Database


async def test_policy_decisions_are_listed_with_what_became_of_them(
    api: MeterApi, books: Books
) -> None:
    path = f"{ADMIN}/policy-decisions"
    assert await every_page(api.operator, path) == []
    payer = await books.payer("ada", 20 * USD)
    held = [await books.held(payer, USD) for _ in range(6)]
    settlements = PostgresSettlementStore(books.pool)
    await settlements.end_by_policy(
        [PolicyDecision(one, PolicyVerdict.CHARGE, Rule.NO_RECORD, None) for one in held[:3]]
        + [PolicyDecision(one, PolicyVerdict.VOID, Rule.NOT_REPORTED, None) for one in held[3:5]]
    )
    await settlements.settle([observed(held[0], "0.25"), observed(held[3], "0.10")])
    await settlements.settle([observed(held[5], "0.10")])
    rows = await every_page(api.operator, path, limit=2)
    assert [row["hold_id"] for row in rows] == [one.hex for one in reversed(held[:5])]
    facts = {
        row["hold_id"]: (
            row["verdict"],
            row["charged_by_policy"],
            row["charge"],
            row["is_corrected"],
        )
        for row in rows
    }
    guess = format_usd(assumed_charge(USD))
    assert [facts[one.hex] for one in held[:5]] == [
        ("charge", guess, "0.25", True),
        ("charge", guess, guess, False),
        ("charge", guess, guess, False),
        ("void", "0.00", "0.10", True),
        ("void", "0.00", "0.00", False),
    ]
    assert {(row["verdict"], row["rule"]) for row in rows} == {
        ("charge", "no_record"),
        ("void", "not_reported"),
    }
    assert {(row["user_id"], row["held"]) for row in rows} == {("ada", "1.00")}


async def test_conflicts_are_listed_beside_what_is_recorded(api: MeterApi, books: Books) -> None:
    path = f"{ADMIN}/settlement-conflicts"
    assert await every_page(api.operator, path) == []
    payer = await books.payer("ada", 20 * USD)
    hold_id = await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    for cost, source in (("0.20", Source.STREAM), ("0.30", Source.FILE), ("0.40", Source.FILE)):
        await settlements.settle([observed(hold_id, cost, source=source)])
    stranger = observed(books.request(payer, 1).hold_id, "0.01")
    await settlements.settle([stranger])
    unheard, second, first = await every_page(api.operator, path, limit=1)
    assert (first["kind"], first["user_id"]) == ("other_amount", "ada")
    assert (first["recorded_cost"], first["arrived_cost"]) == ("0.20", "0.30")
    assert (second["arrived_cost"], second["arrived_by"]) == ("0.40", "file")
    assert (unheard["kind"], unheard["hold_id"]) == ("hold_not_found", stranger.hold_id.hex)
    assert (unheard["user_id"], unheard["recorded_cost"]) == (None, None)


async def test_lookups_are_counted(api: MeterApi, books: Books) -> None:
    path = f"{ADMIN}/lookups"
    nothing = {
        "waiting": 0,
        "without_generation_id": 0,
        "overdue": 0,
        "decided": 0,
        "most_attempts": 0,
        "oldest_seconds": None,
    }
    assert (await api.operator.get(path)).json() == nothing
    payer = await books.payer("ada", 20 * USD)
    held = [await books.held(payer, USD) for _ in range(4)]
    await PostgresSettlementStore(books.pool).settle(
        [
            observed(held[0], usage=None),
            observed(held[1], usage=None, generation_id=None),
            observed(held[2], usage=None),
            observed(held[3], usage=None),
        ]
    )
    await books.pool.execute("UPDATE lookups SET is_decided = true WHERE hold_id = $1", held[3])
    await books.pool.execute(
        "UPDATE lookups SET attempts = 4, deadline_at = now() WHERE hold_id = $1", held[2]
    )
    counted = (await api.operator.get(path)).json()
    assert counted.pop("oldest_seconds") >= 0
    assert counted == {
        "waiting": 3,
        "without_generation_id": 1,
        "overdue": 1,
        "decided": 1,
        "most_attempts": 4,
    }


async def test_a_user_below_zero_is_shown_as_blocked(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", USD)
    user = (await api.operator.get(f"{ADMIN}/users/ada")).json()
    assert (user["is_blocked"], user["overdrawn"]) == (False, "0.00")
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "3")])
    for path in ("users/ada", "users/ada/credits"):
        shown = (await api.operator.get(f"{ADMIN}/{path}")).json()
        assert (shown["is_blocked"], shown["overdrawn"]) == (True, "2.00")
    (listed,) = (await api.operator.get(f"{ADMIN}/users")).json()["data"]
    assert listed["is_blocked"]
    own = (await api.as_key(payer.plain_key, "/api/v1/credits")).json()
    assert (own["is_blocked"], own["overdrawn"]) == (True, "2.00")
    assert (await api.credit("ada", "2", "k")).status_code == 201
    shown = (await api.operator.get(f"{ADMIN}/users/ada")).json()
    assert (shown["is_blocked"], shown["overdrawn"], shown["balance"]) == (False, "0.00", "0.00")


async def test_verification_names_the_head_of_the_chain(api: MeterApi, books: Books) -> None:
    fresh = (await api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert fresh["head"]["number"] == 1
    await books.payer("ada", USD)
    shown = (await api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert shown["head"]["number"] == 2
    rows = await books.pool.fetch("SELECT hash FROM ledger_checkpoints ORDER BY number")
    assert [one["head"]["hash"] for one in (fresh, shown)] == [row["hash"].hex() for row in rows]
    assert shown["dropped_months"] == []
    assert shown["took_ms"] >= 0


async def test_a_reconciliation_is_run_and_kept(
    api: MeterApi, books: Books, database: Database
) -> None:
    path = f"{ADMIN}/reconciliations"
    assert await every_page(api.operator, path) == []
    await books.payer("ada", USD)
    run = await api.operator.post(path)
    assert run.status_code == 201
    first = run.json()
    assert first["ok"], first
    assert [book["found"] for book in first["books"]] == ["0.00", "0.00", "0.00", "1.00", "1.00"]
    assert first["provider"] is None
    assert first["provider_problem"] == "no provider key is set"
    await without_protection(database, "UPDATE accounts SET balance_picos = balance_picos + 1")
    second = (await api.operator.post(path)).json()
    assert not second["ok"]
    balances = {book["book"]: book for book in second["books"]}["balances"]
    assert (balances["drift"], balances["users_differing"]) == ("0.000000000001", 1)
    assert [failure["invariant"] for failure in second["failures"]] == ["balances"]
    assert await every_page(api.operator, path, limit=1) == [second, first]
    assert (await api.anybody.post(path)).status_code == 401
