"""The wire of the Stripe simulator: keys, versions, idempotency, parameters, faults, program."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from tests.stripe_openapi import faults_of, operation, unknown_members, unknown_parameters
from tests.stripe_simulator import KEY, VERSION, Stripe, stripe_running
from tollkeeper.simulator.stripe.app import build_app
from tollkeeper.simulator.stripe.settings import StripeSimulatorSettings
from tollkeeper.simulator.stripe.wire.form import parse_form
from tollkeeper.simulator.stripe.wire.problem import Problem


@pytest.fixture
async def shop() -> AsyncIterator[Stripe]:
    async with stripe_running() as running:
        yield running


async def test_each_route_is_one_of_stripes() -> None:
    app, *_ = build_app(StripeSimulatorSettings())
    paths = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource and route.resource.canonical.startswith("/v1/")
    }
    strange = [one for one in paths if one[0] != "HEAD" and operation(*one) is None]
    assert len(paths) > 50 and not strange


def test_the_judges_notice_what_differs() -> None:
    schema = {"$ref": "#/components/schemas/balance_transaction"}
    good: dict[str, object] = {
        **dict.fromkeys(("amount", "available_on", "created", "fee", "net"), 1),
        **dict.fromkeys(("description", "exchange_rate", "source")),
        **dict.fromkeys(("currency", "id", "reporting_category", "status"), "x"),
        "balance_type": "payments",
        "fee_details": [],
        "object": "balance_transaction",
        "type": "charge",
    }
    assert faults_of(good, schema) is None and unknown_members(good) == []
    for wrong in (
        {**good, "colour": "red"},
        {**good, "amount": "1"},
        {**good, "type": "gift"},
        {name: value for name, value in good.items() if name != "source"},
    ):
        assert faults_of(wrong, schema)
    assert unknown_members({"data": [{**good, "colour": "red"}]}) == [".data.colour"]
    given = {"amount": "1", "metadata": {"a": "b"}, "expand": {"0": "x"}, "colour": "red"}
    assert unknown_parameters("POST", "/v1/payment_intents", given) == ["[colour]"]


async def test_a_key_replays_its_answer_and_refuses_another_body(shop: Stripe) -> None:
    key = {"idempotency_key": "once"}
    first = await shop.v1.customers.create_async({"name": "Ann", "email": "a@example.com"}, key)
    again = await shop.v1.customers.create_async({"email": "a@example.com", "name": "Ann"}, key)
    assert again.id == first.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len((await shop.v1.customers.list_async()).data) == 1
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        await shop.v1.customers.create_async({"name": "Ben"}, key)
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        await shop.v1.products.create_async({"name": "Ann"}, key)
    [event] = (await shop.v1.events.list_async()).data
    assert event.request.idempotency_key == "once"


async def test_a_key_at_once_makes_one_object(shop: Stripe) -> None:
    key = {"idempotency_key": "at once"}
    made = await asyncio.gather(
        *(shop.v1.customers.create_async({"name": "Ann"}, key) for _ in range(20))
    )
    assert len({one.id for one in made}) == 1
    assert len((await shop.v1.customers.list_async()).data) == 1


async def test_lists_have_pages_both_ways(shop: Stripe) -> None:
    made = [(await shop.v1.customers.create_async({"email": "a@b.test"})).id for _ in range(5)]
    for filters in ({}, {"email": "a@b.test"}):
        first = await shop.v1.customers.list_async({"limit": 2, **filters})
        assert [one.id for one in first.data] == [made[4], made[3]] and first.has_more
        seen = [one.id async for one in first.auto_paging_iter()]
        assert seen == made[::-1]
        back = await shop.v1.customers.list_async({"limit": 2, "ending_before": made[1], **filters})
        assert [one.id for one in back.data] == [made[3], made[2]] and back.has_more
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.customers.list_async({"starting_after": "cus_none"})


async def test_bytes_that_are_no_text_are_a_bad_request(shop: Stripe) -> None:
    async with shop.browser.post(
        f"{shop.url}/v1/customers",
        data=b"\xff\xfe=1",
        headers={"Authorization": f"Bearer {KEY}"},
    ) as answer:
        assert answer.status == 400


async def test_a_declined_payment_is_kept_but_a_bad_parameter_is_not(shop: Stripe) -> None:
    params = {
        "amount": 500,
        "currency": "usd",
        "payment_method": "pm_card_chargeDeclined",
        "payment_method_types": ["card"],
        "confirm": True,
    }
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await shop.v1.payment_intents.create_async(params, {"idempotency_key": "declined"})
    assert len((await shop.v1.charges.list_async()).data) == 1
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.customers.create_async({"nonsense": "1"}, {"idempotency_key": "bad"})
    made = await shop.v1.customers.create_async({"name": "Ann"}, {"idempotency_key": "bad"})
    assert made.name == "Ann"


@pytest.mark.parametrize(
    ("trouble", "made"),
    [("error", 0), ("error_after_commit", 1)],
)
async def test_a_500_is_kept_under_its_key(shop: Stripe, trouble: str, made: int) -> None:
    await shop.control("POST", "faults", trouble=trouble, match="POST /v1/customers")
    for _ in range(2):
        with pytest.raises(stripe.APIError) as caught:
            await shop.v1.customers.create_async({}, {"idempotency_key": "five hundred"})
        assert caught.value.http_status == 500
    assert len((await shop.v1.customers.list_async()).data) == made


@pytest.mark.parametrize("trouble", ["cut", "cut_after_commit", "conflict"])
async def test_the_library_survives_a_cut_and_a_conflict(shop: Stripe, trouble: str) -> None:
    await shop.control("POST", "faults", trouble=trouble, match="POST /v1/customers")
    await shop.v1.customers.create_async({"name": "Ann"})
    assert len((await shop.v1.customers.list_async()).data) == 1


async def test_a_rate_limit_is_told(shop: Stripe) -> None:
    await shop.control("POST", "faults", trouble="rate_limit")
    with pytest.raises(stripe.RateLimitError):
        await shop.v1.customers.list_async()


async def test_a_fault_that_makes_no_sense_is_refused(shop: Stripe) -> None:
    for body in ({"trouble": "fire"}, {"trouble": "delay"}, {"trouble": "cut", "delay_ms": 1}):
        async with shop.browser.post(f"{shop.url}/control/faults", json=body) as answer:
            assert answer.status == 400
            assert "trouble" in await answer.text() or body["trouble"] != "fire"


async def test_a_bad_request_names_its_parameter(shop: Stripe) -> None:
    for params, param, code in (
        ({"amount": 10, "currency": "usd"}, "amount", "amount_too_small"),
        ({"amount": "ten", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": 100}, "currency", "parameter_missing"),
        (
            {"amount": 100, "currency": "usd", "customer": "cus_none"},
            "customer",
            "resource_missing",
        ),
        ({"amount": 100, "currency": "usd", "colour": "red"}, "colour", "parameter_unknown"),
        ({"amount": 100, "currency": "usd", "expand": ["amount"]}, "expand", None),
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await shop.v1.payment_intents.create_async(params)
        assert (caught.value.param, caught.value.code) == (param, code)
        assert caught.value.http_status == 400
        assert caught.value.request_id is not None
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.customers.retrieve_async("cus_none")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")


async def test_a_wrong_or_live_key_is_refused(shop: Stripe) -> None:
    for key in ("sk_test_other", "sk_live_simulator"):
        with pytest.raises(stripe.AuthenticationError):
            await shop.v1.customers.list_async({}, {"api_key": key})
    with pytest.raises(ValueError, match="sk_test_"):
        StripeSimulatorSettings(secret_key="sk_live_x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="WEBHOOK_SECRET"):
        StripeSimulatorSettings(webhook_url="http://127.0.0.1:1/")


async def test_an_old_version_is_refused_and_the_given_one_is_told(shop: Stripe) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="version"):
        await shop.v1.customers.list_async({}, {"stripe_version": "2022-11-15"})
    listed = await shop.v1.customers.list_async()
    assert listed.last_response.headers["Stripe-Version"] == VERSION


async def test_a_path_that_is_left_out_says_so(shop: Stripe) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        await shop.v1.payouts.list_async()


async def test_metadata_is_merged_and_unset(shop: Stripe) -> None:
    made = await shop.v1.customers.create_async({"metadata": {"a": "1", "b": "2"}})
    changed = await shop.v1.customers.update_async(made.id, {"metadata": {"a": "", "c": "3"}})
    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}
    changed = await shop.v1.customers.update_async(made.id, {"metadata": ""})
    assert changed.metadata.to_dict() == {}
    many = {str(number): "x" for number in range(51)}
    with pytest.raises(stripe.InvalidRequestError, match="up to 50 keys"):
        await shop.v1.customers.create_async({"metadata": many})
    deleted = await shop.v1.customers.delete_async(made.id)
    assert deleted.deleted


def test_nested_names_become_a_tree() -> None:
    text = "a=1&b[c][d]=2&e[]=3&e[]=4&f[0][g]=5&f[1][g]=6&h%5Bi%5D=%C3%A9"
    assert parse_form(text) == {
        "a": "1",
        "b": {"c": {"d": "2"}},
        "e": {"0": "3", "1": "4"},
        "f": {"0": {"g": "5"}, "1": {"g": "6"}},
        "h": {"i": "é"},
    }


@given(st.text(alphabet="ab[]=&01%", max_size=60))
def test_any_form_is_a_tree_or_a_problem(text: str) -> None:
    with contextlib.suppress(Problem):
        assert isinstance(parse_form(text), dict)


async def test_the_program_starts_serves_and_ends() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tollkeeper.simulator.stripe", "--listen", "127.0.0.1:0"),
        env={**os.environ, "STRIPE_SIMULATOR_SECRET_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        url = json.loads(await child.stdout.readline())["url"]
        headers = {"Authorization": f"Bearer {KEY}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{url}/v1/customers", headers=headers) as answer,
        ):
            assert answer.status == 200
        child.terminate()
        assert await child.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
