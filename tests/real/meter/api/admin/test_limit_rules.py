"""Limit rules, and limits of plans and users, as administrators set them."""

from typing import Any

from meter.limits.limits import AppliesTo, CountedPer
from meter.limits.rule_store import MOST_LIMIT_RULES, LimitRuleStore
from tests.meter_api import ADMIN, MeterApi

LIMITS = f"{ADMIN}/limits"
RULE: dict[str, Any] = {
    "applies_to": "plan",
    "applies_id": "standard",
    "counted_per": "user",
    "model_pattern": "openai/*",
    "requests_per_minute": 60,
    "tokens_per_minute": None,
    "requests_per_day": None,
    "requests_per_month": 5_000,
    "is_shadow": True,
}


async def test_a_rule_is_set_changed_and_removed(api: MeterApi) -> None:
    path = f"{LIMITS}/gpt"
    made = await api.operator.put(path, json=RULE)
    assert (made.status_code, made.json()) == (201, {"id": "gpt", **RULE})
    (rule,) = await LimitRuleStore(api.pool).list_all()
    assert (rule.applies_to, rule.counted_per) == (AppliesTo.PLAN, CountedPer.ACCOUNT)
    shorter = {"applies_to": "everyone", "tokens_per_minute": 1_000_000}
    changed = await api.operator.put(path, json=shorter)
    assert changed.status_code == 200
    assert changed.json() == {
        "id": "gpt",
        "applies_id": None,
        "counted_per": "rule",
        "model_pattern": None,
        "requests_per_minute": None,
        "requests_per_day": None,
        "requests_per_month": None,
        "is_shadow": False,
        **shorter,
    }
    assert (await api.operator.get(path)).json() == changed.json()
    assert (await api.operator.get(LIMITS)).json() == {"data": [changed.json()]}
    assert (await api.operator.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await api.operator.request(method, path)).status_code == 404


async def test_rules_that_make_no_sense_are_refused(api: MeterApi) -> None:
    for change in (
        {"applies_to": "planet"},
        {"applies_id": None},
        {"applies_id": "gold"},
        {"applies_to": "user", "applies_id": "nobody"},
        {"applies_to": "key", "applies_id": "standard"},
        {"applies_to": "everyone"},
        {"counted_per": "model"},
        {"model_pattern": ""},
        {"model_pattern": "a b"},
        {"requests_per_minute": 0},
        {"requests_per_minute": None, "requests_per_month": None},
        {"requests_per_day": 0},
        {"requests_per_minute": "60"},
        {"is_shadow": 1},
        {"priority": 5},
    ):
        refused = await api.operator.put(f"{LIMITS}/gpt", json={**RULE, **change})
        assert refused.status_code == 422, change
    assert (await api.operator.put(f"{LIMITS}/Not-An-Id", json=RULE)).status_code == 422
    assert (await api.operator.get(LIMITS)).json() == {"data": []}


async def test_rules_have_a_limit_of_their_own(api: MeterApi) -> None:
    await api.pool.execute(
        "INSERT INTO limit_rules (id, applies_to, counted_per, requests_per_minute)"
        " SELECT 'r' || n, 'everyone', 'rule', 5 FROM generate_series(1, $1) n",
        MOST_LIMIT_RULES,
    )
    assert (await api.operator.put(f"{LIMITS}/more", json=RULE)).status_code == 409
    assert (await api.operator.put(f"{LIMITS}/r1", json=RULE)).status_code == 200


async def test_users_have_limits_of_their_own(api: MeterApi) -> None:
    await api.user("ada")
    path = f"{ADMIN}/users/ada"
    limits = {"requests_per_minute": 5, "tokens_per_minute": 9_000, "concurrent_requests": 2}
    changed = (await api.operator.patch(path, json=limits)).json()
    assert {name: changed[name] for name in limits} == limits
    changed = (await api.operator.patch(path, json={"tokens_per_minute": None})).json()
    assert (changed["tokens_per_minute"], changed["requests_per_minute"]) == (None, 5)
    for wrong in (
        {"requests_per_minute": 0},
        {"tokens_per_minute": 1_000_000_001},
        {"concurrent_requests": "2"},
        {"may_manage_keys": None},
    ):
        assert (await api.operator.patch(path, json=wrong)).status_code == 422
    made = await api.operator.post(
        f"{ADMIN}/users",
        json={"email": "b@example.com", "concurrent_requests": 3, "may_manage_keys": False},
    )
    assert (made.json()["concurrent_requests"], made.json()["may_manage_keys"]) == (3, False)
