"""Plans as data with history, through the meter API."""

from typing import Any

from tests.books import Books
from tests.meter_api import ADMIN, MeterApi

IN_PERIOD = "UPDATE accounts SET plan_id = 'starter', plan_version = 1 WHERE id = 'ada'"


async def set_plan(api: MeterApi, query: str = "", **terms: Any) -> dict[str, Any]:
    answer = await api.operator.patch(f"{ADMIN}/plans/starter{query}", json=terms)
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


async def applying(api: MeterApi, account_id: str) -> tuple[int, int | None]:
    row = await api.pool.fetchrow(
        "SELECT markup_bps, requests_per_month FROM account_plans WHERE account_id = $1", account_id
    )
    assert row is not None
    return row["markup_bps"], row["requests_per_month"]


async def test_plans_are_sold_at_first(api: MeterApi, books: Books) -> None:
    await books.payer("ada", 0)
    secret = (await api.key("ada"))["key"]
    answer = await api.as_key(secret, "/api/v1/billing/plans")
    assert answer.status_code == 200, answer.text
    told = [
        (
            plan["id"],
            plan["price"]["amount"],
            plan["price"]["period"],
            plan["price"]["included_credit"],
            plan["limits"]["requests_per_day"],
            plan["limits"]["requests_per_month"],
            plan["is_most_popular"],
        )
        for plan in answer.json()["data"]
    ]
    assert told == [
        ("trial", "1.00", "week", "5.00", 100, None, False),
        ("starter", "19.00", "month", "20.00", None, 1_000, False),
        ("professional", "49.00", "month", "60.00", None, 10_000, True),
        ("enterprise", "99.00", "month", "150.00", None, None, False),
    ]
    await api.operator.post(f"{ADMIN}/plans/trial/retire")
    assert len((await api.as_key(secret, "/api/v1/billing/plans")).json()["data"]) == 3


async def test_a_change_makes_a_version_for_new_periods(api: MeterApi, books: Books) -> None:
    await books.payer("ada", 0)
    await books.payer("bob", 0)
    # Ada is in a period of the first version; Bob has no periods.
    await api.pool.execute(
        "UPDATE accounts SET plan_id = 'starter', plan_version = 1 WHERE id = 'ada'"
    )
    await api.pool.execute("UPDATE accounts SET plan_id = 'starter' WHERE id = 'bob'")
    changed = await set_plan(api, markup_bps=4_000)
    assert (changed["version"], changed["markup_bps"], changed["name"]) == (2, 4_000, "Starter")
    assert await applying(api, "ada") == (0, 1_000)
    assert await applying(api, "bob") == (4_000, 1_000)
    assert (await set_plan(api, markup_bps=4_000))["version"] == 2

    await set_plan(api, "?applies=at_once", requests_per_month=None, max_keys=7)
    assert await applying(api, "ada") == await applying(api, "bob") == (4_000, None)
    found = (await api.operator.get(f"{ADMIN}/plans/starter")).json()
    assert (found["version"], found["max_keys"], found["price"]["amount"]) == (3, 7, "19.00")
    assert [(one["version"], one["markup_bps"], one["applies"]) for one in found["versions"]] == [
        (3, 4_000, "current"),
        (2, 4_000, "past"),
        (1, 0, "past"),
    ]
    lines = (await api.operator.get(f"{ADMIN}/audit-log")).json()["data"]
    assert [line["detail"]["version"] for line in lines if line["action"] == "plan.set"] == [3, 2]


async def test_an_administrators_other_plan_ends_the_period(api: MeterApi, books: Books) -> None:
    await books.payer("ada", 0)
    await api.pool.execute(
        "UPDATE accounts SET plan_id = 'starter', plan_version = 1 WHERE id = 'ada'"
    )
    await api.operator.patch(f"{ADMIN}/users/ada", json={"plan": "professional"})
    assert await applying(api, "ada") == (0, 10_000)


async def test_terms_of_a_price(api: MeterApi) -> None:
    price = {"amount": "19.00", "period": "month", "included_credit": "20.00"}
    trial = {"days": 14, "credit": "2.00"}
    changed = await set_plan(api, price={**price, "trial": trial})
    assert changed["price"] == {**price, "trial": trial}
    for wrong in (
        {**price, "amount": "0.49"},
        {**price, "amount": "19.001"},
        {**price, "period": "day"},
        {**price, "trial": {"credit": "2.00"}},
        {**price, "trial": {"days": 0}},
    ):
        answer = await api.operator.patch(f"{ADMIN}/plans/starter", json={"price": wrong})
        assert answer.status_code == 422, wrong
    assert (await set_plan(api, price=None))["price"] is None
    assert (await api.operator.get(f"{ADMIN}/plans/none")).status_code == 404
    assert (await api.operator.patch(f"{ADMIN}/plans/none", json={})).status_code == 404
    assert (await api.operator.post(f"{ADMIN}/plans/none/retire")).status_code == 404
