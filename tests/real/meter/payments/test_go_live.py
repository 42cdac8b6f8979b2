"""Real money is taken only after every check has passed; each failed one says what to do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from pydantic import SecretStr

from meter.audit.events import SYSTEM
from meter.payments import go_live
from meter.payments.auto_top_up_store import AutoTopUpStore
from meter.payments.go_live import probe_webhook
from meter.payments.go_live_store import GoLiveStore
from tests.books import Books
from tests.meter_api import ADMIN, MeterApi, admit_operator, meter_api
from tests.patience import WAIT_S
from tests.selling import PUBLIC_URL, WEBHOOK, WEBHOOK_SECRET, event, mode, signed
from tests.shop import Shop, selling

PATH = f"{ADMIN}/go-live"
ENDPOINT = {"webhook_url": f"{PUBLIC_URL}{WEBHOOK}", "webhook_secret": SecretStr(WEBHOOK_SECRET)}


@pytest_asyncio.fixture
async def shop(books: Books, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """A meter in test mode that Stripe knows, and that is reached from outside."""

    async def reached(url: str) -> str | None:
        return None if url == ENDPOINT["webhook_url"] else "is another address"

    monkeypatch.setattr(go_live, "probe_webhook", reached)
    monkeypatch.setattr(go_live, "_LOOPBACK", frozenset({"gateway.test"}))
    async with selling(books.pool, **ENDPOINT) as opened:
        await opened.api.user("ada")
        synced = await opened.api.operator.post(f"{ADMIN}/plans/sync", json={})
        assert synced.status_code == 200, synced.text
        yield opened


@asynccontextmanager
async def served(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Serve one answer on this machine; the address of it."""
    app = web.Application()
    app.add_routes([web.post("/hook", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


async def checks(shop: Shop, **body: str) -> dict[str, tuple[str, str, str | None]]:
    """Run the checks: state, why and what to do next of each."""
    answer = await shop.api.operator.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    states = {one["state"] for one in found["checks"]}
    assert found["ok"] == (states == {"passed"})
    assert all(one["next_step"] for one in found["checks"] if one["state"] == "failed")
    return {one["name"]: (one["state"], one["why"], one["next_step"]) for one in found["checks"]}


def states(found: dict[str, tuple[str, str, str | None]]) -> list[str]:
    """The state of each check, in order."""
    return [state for state, _, _ in found.values()]


async def test_a_plan_without_its_price_at_stripe_keeps_the_shop_closed(shop: Shop) -> None:
    changed = await shop.api.operator.patch(
        f"{ADMIN}/plans/starter",
        json={"price": {"amount": "21.00", "period": "month", "included_credit": "20.00"}},
    )
    assert changed.status_code == 200, changed.text
    state, why, next_step = (await checks(shop))["prices"]
    assert (state, why) == ("failed", "plan starter: the price is missing")
    assert "tollkeeper plans sync" in str(next_step)
    await shop.api.operator.post(f"{ADMIN}/plans/sync", json={})
    assert (await checks(shop))["prices"][0] == "passed"


async def test_the_checks_pass_with_a_purchase_that_is_paid_and_refunded(shop: Shop) -> None:
    found = await checks(shop)
    assert states(found) == ["passed"] * 5 + ["waiting"] * 3
    assert "--user USER" in str(found["purchase of 1 USD"][2])
    unknown = await shop.api.operator.post(PATH, json={"user_id": "nobody"})
    assert unknown.status_code == 404
    to_pay = str((await checks(shop, user_id="ada"))["purchase of 1 USD"][2])
    # Asked again, it shows the same page, and opens no second purchase.
    assert str((await checks(shop, user_id="ada"))["purchase of 1 USD"][2]) == to_pay
    await shop.pay(next(word for word in to_pay.split() if word.startswith("http")))
    await shop.deliver(*shop.events())
    assert await shop.balance("ada") == "1.00"
    found = await checks(shop)
    assert states(found) == ["passed"] * 8, found
    assert await shop.balance("ada") == "0.00"
    assert states(await checks(shop)) == ["passed"] * 8
    # A rehearsal: nothing was opened for real money.
    assert not await GoLiveStore(shop.api.pool).is_open()
    await shop.assert_equal_books()


async def test_credit_that_did_not_come_by_the_webhook_fails_the_check(shop: Shop) -> None:
    to_pay = str((await checks(shop, user_id="ada"))["purchase of 1 USD"][2])
    await shop.pay(next(word for word in to_pay.split() if word.startswith("http")))
    await shop.meter.sweep.sweep()
    await shop.meter.worker.follow_all()
    found = await checks(shop)
    assert states(found)[-3:] == ["passed", "failed", "waiting"]
    assert "deliveries" in str(found["credit by the webhook"][2])


async def test_a_missing_endpoint_event_and_address_are_named(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (endpoint,) = shop.stripe.world.store.of("webhook_endpoint")
    endpoint["enabled_events"] = ["charge.*", "payment_intent.succeeded"]
    state, why, _ = (await checks(shop))["webhook endpoint at Stripe"]
    assert state == "failed" and "checkout.session.completed" in why
    endpoint.update(enabled_events=["*"], status="disabled")
    state, why, _ = (await checks(shop))["webhook endpoint at Stripe"]
    assert state == "failed" and f"{PUBLIC_URL}{WEBHOOK}" in why
    monkeypatch.setattr(go_live, "_LOOPBACK", frozenset())
    found = await checks(shop)
    assert found["public address"][0] == "failed"
    assert "TOLLKEEPER_PUBLIC_URL" in str(found["public address"][2])


async def test_an_address_that_does_not_lead_to_the_meter_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(go_live, "probe_webhook", probe_webhook)
    monkeypatch.setattr(shop.meter.go_live, "_webhook_url", "http://127.0.0.1:9/hook")
    state, why, next_step = (await checks(shop))["webhook reachable and signed"]
    assert state == "failed" and "not reached" in why and next_step


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, '{"code": "webhook_refused"}', None),
        (404, '{"code": "selling_off"}', "answers 404"),
        (200, "hello", "answers 200"),
        (400, "nginx", "answers 400"),
        (302, "", "answers 302"),
    ],
)
async def test_the_probe_knows_a_meter_that_refuses(
    status: int, body: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(go_live, "PROBE_TIMEOUT_S", WAIT_S)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"Location": "/elsewhere"})

    async with served(answer) as url:
        found = await probe_webhook(url)
    assert found is None if expected is None else expected in str(found)


async def test_a_live_meter_sells_nothing_before_all_checks_have_passed(books: Books) -> None:
    await admit_operator(books.pool)
    async with meter_api(books.pool, sells=mode(is_live=True)) as api:
        await api.user("ada")
        assert await terms(api) == (False, "going_live")
        path = f"{ADMIN}/users/ada/checkout"
        refused = await api.operator.post(path, json={"amount": "25.00"})
        assert (refused.status_code, refused.json()["code"]) == (404, "selling_off")
        assert "going live" in refused.json()["detail"]
        key = (await api.key("ada", scopes=["billing:write"]))["key"]
        own = await api.as_key(key, "/api/v1/billing/checkout", "POST", {"amount": "25.00"})
        assert own.json()["code"] == "selling_off"
        await AutoTopUpStore(books.pool).switch_on("ada", 10**13, 10**13, 10**13, SYSTEM)
        assert await api.selling.auto_top_ups.look() == 0
        assert await books.pool.fetchval("SELECT count(*) FROM purchases") == 0
        # Stripe is heard all the same: its events may be about the purchase that proves it.
        body = event(livemode=True)
        heard = await api.anybody.post(WEBHOOK, content=body, headers=signed(body))
        assert heard.status_code == 200
        await books.pool.execute(
            "WITH bought AS (INSERT INTO purchases (id, account_id, kind, is_live, amount_picos,"
            " saves_card) VALUES (gen_random_uuid(), 'ada', 'checkout', true, 1000000000000, false)"
            " RETURNING id) INSERT INTO go_lives (is_live, purchase_id) SELECT true, id FROM bought"
        )
        await GoLiveStore(books.pool).note_passed(SYSTEM)
        assert await terms(api) == (True, "live")


async def terms(api: MeterApi) -> tuple[bool, str]:
    """The answer that says if credit is sold, and in which mode."""
    found: dict[str, Any] = (await api.operator.get(f"{ADMIN}/selling")).json()
    return found["is_selling"], found["mode"]
