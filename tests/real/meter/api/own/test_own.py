"""The reach of an API key: its own account's books, and nobody else's."""

import asyncio
import uuid
from datetime import UTC, datetime

from meter.identity.keys.key_text import mint
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import MODEL, USD, Books, Payer, observed
from tests.meter_api import ADMIN, OPERATOR_TOKEN, MeterApi, every_page

OWN = ("/api/v1/credits", "/api/v1/transactions", "/api/v1/usage", "/api/v1/keys")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def spend(books: Books, payer: Payer, cost: str, at: datetime = AT) -> uuid.UUID:
    """Let a request of this payer be settled; a fifth is added to its cost."""
    hold_id = await books.held(payer, USD, markup_bps=2_000, placed_at=at)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, cost, started_at=at)])
    return hold_id


async def test_a_key_reads_what_its_account_did(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 5 * USD)
    await spend(books, payer, "0.25")
    funds = (await api.as_key(payer.plain_key, "/api/v1/credits")).json()
    assert (funds["balance"], funds["available"]) == ("4.70", "4.70")
    settled, granted = (await api.as_key(payer.plain_key, "/api/v1/transactions")).json()["data"]
    assert (settled["type"], settled["amount"], settled["model"]) == ("settlement", "-0.30", MODEL)
    assert (settled["prompt_tokens"], settled["completion_tokens"]) == (10, 20)
    assert settled["key_id"] == payer.credential_id
    assert (granted["type"], granted["amount"], granted["model"]) == ("grant", "5.00", None)
    assert granted["reason"] == "test credit"
    usage = await api.as_key(
        payer.plain_key, "/api/v1/usage", **{"from": "2026-01-01", "to": "2026-01-02"}
    )
    assert usage.json()["data"] == [
        {
            "group": "2026-01-02",
            "requests": 1,
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "cached_tokens": 0,
            "reasoning_tokens": 0,
            "charge": "0.30",
            "own_key_cost": "0.00",
        }
    ]


async def test_both_headers_carry_a_key(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", USD)
    for headers in (
        {"x-api-key": payer.plain_key},
        {"Authorization": f"bearer {payer.plain_key}"},
        {"Authorization": f"Bearer {payer.plain_key}", "x-api-key": payer.plain_key},
    ):
        assert (await api.anybody.get(OWN[0], headers=headers)).status_code == 200


async def test_every_credential_that_is_not_good_gets_one_answer(
    api: MeterApi, books: Books
) -> None:
    payer, other = await books.payer("ada", USD), await books.payer("bob", USD)
    revoked = await books.payer("eve", USD)
    await api.operator.delete(f"{ADMIN}/users/eve/api-keys/{revoked.credential_id}")
    presented: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", "")],
        [("Authorization", payer.plain_key)],
        [("Authorization", f"Basic {payer.plain_key}")],
        [("Authorization", f"Bearer {payer.plain_key[:-1]}")],
        [("Authorization", f"Bearer {mint().plain.reveal()}")],
        [("Authorization", f"Bearer {revoked.plain_key}")],
        [("Authorization", f"Bearer {OPERATOR_TOKEN}")],
        [("Authorization", "Bearer " + "x" * 10_000)],
    ]
    answers = set()
    for headers in presented:
        for path in OWN:
            answer = await api.anybody.get(path, headers=headers)
            assert answer.status_code == 401, headers
            assert answer.headers["www-authenticate"].startswith("Bearer")
            answers.add(answer.text)
    assert len(answers) == 1
    conflicting: list[list[tuple[str, str]]] = [
        [("Authorization", f"Bearer {payer.plain_key}"), ("x-api-key", other.plain_key)],
        [("x-api-key", payer.plain_key), ("x-api-key", other.plain_key)],
        [("x-api-key", payer.plain_key), ("x-api-key", payer.plain_key)],
    ]
    for headers in conflicting:
        for path in OWN:
            answer = await api.anybody.get(path, headers=headers)
            assert answer.status_code == 400, headers
            assert answer.json()["code"] == "conflicting_credentials"


async def test_a_suspended_account_may_still_read(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", USD)
    await api.operator.post(f"{ADMIN}/users/ada/suspend")
    for path in OWN:
        assert (await api.as_key(payer.plain_key, path)).status_code == 200


async def test_tenants_never_see_each_other(api: MeterApi, books: Books) -> None:
    ada, bob = await books.payer("ada", 5 * USD), await books.payer("bob", 7 * USD)
    for payer, cost in ((ada, "0.11"), (ada, "0.12"), (bob, "0.23")):
        await spend(books, payer, cost, datetime.now(UTC))
    await api.credit("ada", "1.00", "k", "planted-text-of-ada")
    for path in OWN:
        seen = (await api.as_key(bob.plain_key, path)).text
        assert "ada" not in seen
        assert ada.credential_id not in seen
    assert (await api.as_key(bob.plain_key, OWN[0])).json()["balance"] == "6.724"
    assert len((await api.as_key(bob.plain_key, OWN[1])).json()["data"]) == 2
    (day,) = (await api.as_key(bob.plain_key, OWN[2])).json()["data"]
    assert (day["requests"], day["charge"]) == (1, "0.276")


async def test_a_cursor_serves_the_list_that_gave_it_only(api: MeterApi, books: Books) -> None:
    ada, bob = await books.payer("ada", 5 * USD), await books.payer("bob", 5 * USD)
    for payer in (ada, bob):
        await spend(books, payer, "0.01")
        await api.key(payer.account_id)
    page = await api.as_key(ada.plain_key, "/api/v1/transactions", limit=1)
    cursor = page.json()["next_cursor"]
    again = await api.as_key(ada.plain_key, "/api/v1/transactions", limit=1, cursor=cursor)
    assert again.status_code == 200
    assert again.json()["data"] != page.json()["data"]
    flipped = ("B" if cursor[-5] == "A" else "A").join((cursor[:-5], cursor[-4:]))
    for path, key, wrong in (
        ("/api/v1/transactions", bob.plain_key, cursor),
        ("/api/v1/keys", ada.plain_key, cursor),
        ("/api/v1/usage", ada.plain_key, cursor),
        *(
            ("/api/v1/transactions", ada.plain_key, bad)
            for bad in (flipped, cursor[:-1], cursor + "A", cursor + "=", "", "x", "\x00", "é", "1")
        ),
    ):
        refused = await api.as_key(key, path, cursor=wrong)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor"), wrong


async def test_transactions_are_paged_while_new_ones_arrive(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 5 * USD)
    for number in range(9):
        await api.credit("ada", "0.01", f"k{number}", f"number {number}")
    page = (await api.as_key(payer.plain_key, "/api/v1/transactions", limit=4)).json()
    await api.credit("ada", "0.01", "late", "late")
    rest = await every_page(
        api.operator, f"{ADMIN}/users/ada/transactions", limit=4, cursor=page["next_cursor"]
    )
    reasons = [row["reason"] for row in (*page["data"], *rest)]
    assert reasons == [f"number {number}" for number in reversed(range(9))] + ["test credit"]


async def test_usage_is_added_up_by_day_model_and_key(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", 50 * USD)
    edge = (datetime(2026, 1, 2, 0, 0, tzinfo=UTC), datetime(2026, 1, 2, 23, 59, 59, tzinfo=UTC))
    for at in (*edge, datetime(2026, 1, 3, 0, 0, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)):
        await spend(books, payer, "0.10", at)
    period = {"from": "2026-01-02", "to": "2026-01-31"}
    path = f"{ADMIN}/users/ada/usage"
    days = await every_page(api.operator, path, limit=1, **period)
    assert [(day["group"], day["requests"]) for day in days] == [
        ("2026-01-02", 2),
        ("2026-01-03", 1),
    ]
    assert (days[0]["provider_cost"], days[0]["charge"]) == ("0.20", "0.24")
    for group_by, group in (("model", MODEL), ("key", payer.credential_id)):
        (row,) = await every_page(api.operator, path, group_by=group_by, **period)
        assert (row["group"], row["requests"], row["charge"]) == (group, 3, "0.36")
    own = await api.as_key(payer.plain_key, "/api/v1/usage", **period)
    assert "provider_cost" not in own.text


async def test_a_period_that_makes_no_sense_is_refused(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", USD)
    for wrong in (
        {"from": "2026-02-01", "to": "2026-01-01"},
        {"from": "2025-01-01", "to": "2026-06-01"},
        {"from": "0001-01-01"},
        {"to": "9999-12-31"},
        {"from": "yesterday"},
        {"group_by": "hour"},
        {"limit": "0"},
        {"limit": "201"},
        {"unknown": "1"},
    ):
        refused = await api.as_key(payer.plain_key, "/api/v1/usage", **wrong)
        assert refused.status_code == 422, wrong


async def test_many_readers_at_once(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", USD)
    answers = await asyncio.gather(*(api.as_key(payer.plain_key, OWN[n % 4]) for n in range(40)))
    assert {answer.status_code for answer in answers} == {200}
