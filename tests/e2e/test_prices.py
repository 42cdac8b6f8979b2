"""Price limits on the whole stack: no endpoint dearer than the hold assumes serves."""

from decimal import Decimal

from tests.e2e.admin import Admin

DEARER = 3


def test_no_endpoint_that_is_dearer_than_the_hold_serves(admin: Admin) -> None:
    customer = admin.open_account("1")
    admin.misbehave(price_factor=DEARER)
    billed = len(admin.bill())
    for members in (
        {},
        {"provider": {"only": ["dear"]}},
        {"provider": {"sort": "throughput", "max_price": {"prompt": 1_000, "completion": 1_000}}},
        {"model": "openai/gpt-4o-mini:nitro"},
    ):
        assert admin.ask(customer, **members).status == 404
    assert len(admin.bill()) == billed
    admin.wait_settled(customer)
    assert admin.credits(customer)["balance"] == 1
    admin.misbehave(price_factor=1)
    assert admin.ask(customer).status == 200


def test_a_lower_limit_of_the_client_holds(admin: Admin) -> None:
    customer = admin.open_account("1")
    admin.misbehave(price_factor=1)
    assert admin.ask(customer, provider={"max_price": {"completion": 0.1}}).status == 404
    refused = admin.ask(customer, provider={"max_price": {"completion": "cheap"}})
    assert refused.status == 400
    assert refused.error["param"] == "provider.max_price.completion"


def test_unasked_searches_are_held(admin: Admin) -> None:
    searching = "openai/gpt-4o-mini-search-preview"
    admin.misbehave(match={"model": searching}, unasked_searches=10)
    customer = admin.open_account("1")
    assert admin.ask(customer, model=searching, max_tokens=1).status == 200
    admin.wait_settled(customer)
    funds = admin.credits(customer)
    assert funds["overdrawn"] == 0
    assert Decimal("0.72") < funds["balance"] < Decimal("0.73")
    poor = admin.open_account("0.2")
    assert admin.ask(poor, model=searching, max_tokens=1).status == 402
    assert admin.ask(customer, model="perplexity/sonar-deep-research").status == 404


def test_the_tier_of_a_long_prompt_is_held_and_charged(admin: Admin) -> None:
    customer = admin.open_account("5")
    admin.misbehave(prompt_tokens=250_000, completion_tokens=10)
    text = "x" * 250_000
    reply = admin.ask(
        customer,
        model="google/gemini-2.5-pro",
        max_tokens=10,
        messages=[{"role": "user", "content": text}],
    )
    assert reply.status == 200
    admin.wait_settled(customer)
    funds = admin.credits(customer)
    assert funds["overdrawn"] == 0
    assert 5 - funds["balance"] > Decimal("0.25")
