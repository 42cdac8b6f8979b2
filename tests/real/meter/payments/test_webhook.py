"""Attacks on the webhook: whatever Stripe did not send has no effect, and what it sent has one."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from meter.payments.event_store import EventState
from tests.books import Books
from tests.meter_api import MeterApi, admit_operator, meter_api
from tests.selling import WEBHOOK, event, mode, signed


@pytest_asyncio.fixture
async def shop(books: Books) -> AsyncIterator[MeterApi]:
    """A meter that sells through a Stripe that does not answer."""
    await admit_operator(books.pool)
    async with meter_api(books.pool, sells=mode()) as client:
        yield client


async def stored(shop: MeterApi) -> list[str]:
    """The ids of all events in the tables."""
    rows = await shop.pool.fetch("SELECT id FROM stripe_events ORDER BY seq")
    return [row["id"] for row in rows]


async def test_an_event_that_stripe_signed_is_stored_once(shop: MeterApi) -> None:
    body = event()
    sent = [shop.anybody.post(WEBHOOK, content=body, headers=signed(body)) for _ in range(8)]
    answers = await asyncio.gather(*sent)
    assert {one.status_code for one in answers} == {200}
    assert sorted(one.json()["is_new"] for one in answers) == [False] * 7 + [True]
    assert await stored(shop) == ["evt_1"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (event(), {"Content-Type": "application/json"}),
        (event(), {**signed(event()), "Stripe-Signature": ""}),
        (event(), {**signed(event()), "Stripe-Signature": "t=1,v1=00"}),
        (event(), {**signed(event()), "Stripe-Signature": "t=9e99,v1=00"}),
        (event(), signed(event(), secret="whsec_of_another")),
        (event(), signed(event(), at=int(time.time()) - 301)),
        (event(event_id="evt_2"), signed(event())),
        (event() + b" ", signed(event())),
        (event(livemode=True), signed(event(livemode=True))),
        (event(livemode="false"), signed(event(livemode="false"))),
        (b"[]", signed(b"[]")),
        (b"{}", signed(b"{}")),
        (b"\xff\xfe", signed(b"")),
        (b"[" * 100_000, signed(b"[" * 100_000)),
    ],
    ids=[
        "unsigned",
        "empty",
        "old and wrong",
        "no time",
        "wrong secret",
        "old",
        "another body",
        "a changed byte",
        "live",
        "no mode",
        "no object",
        "no event",
        "no text",
        "nested",
    ],
)
async def test_what_stripe_did_not_send_is_refused(
    shop: MeterApi, body: bytes, headers: dict[str, str]
) -> None:
    refused = await shop.anybody.post(WEBHOOK, content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "webhook_refused"), refused.text
    assert await stored(shop) == []


async def test_two_signatures_are_refused(shop: MeterApi) -> None:
    body = event()
    headers = [*signed(body).items(), ("Stripe-Signature", "t=1,v1=00")]
    refused = await shop.anybody.post(WEBHOOK, content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "webhook_refused")


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_ten_megabytes_are_refused_before_they_are_read(
    shop: MeterApi, is_chunked: bool
) -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(160):
            read += 1
            yield b"x" * 65_536

    headers = signed(b"")
    if not is_chunked:
        headers["Content-Length"] = str(160 * 65_536)
    refused = await shop.anybody.post(WEBHOOK, content=chunks(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "request_too_large")
    assert await stored(shop) == []


async def test_an_unknown_event_is_kept_and_counted(shop: MeterApi) -> None:
    body = event("customer.tax_id.created", "txi_1")
    assert (await shop.anybody.post(WEBHOOK, content=body, headers=signed(body))).status_code == 200
    (kept,) = (await shop.operator.get("/api/v1/admin/stripe-events?state=unknown")).json()["data"]
    assert (kept["id"], kept["type"]) == ("evt_1", "customer.tax_id.created")
    assert await shop.selling.worker.follow_all() == 0


async def test_an_event_without_an_object_id_is_kept(shop: MeterApi) -> None:
    body = event("balance.available", data={"object": {"object": "balance"}})
    assert (await shop.anybody.post(WEBHOOK, content=body, headers=signed(body))).status_code == 200
    assert await stored(shop) == ["evt_1"]


async def test_events_wait_while_stripe_does_not_answer(shop: MeterApi) -> None:
    body = event()
    await shop.anybody.post(WEBHOOK, content=body, headers=signed(body))
    assert await shop.selling.worker.follow_all() == 1
    (kept,) = await shop.selling.events.list_page(None, None, 10)
    assert kept.state is EventState.WAITING
    assert kept.error is not None and "Stripe does not answer" in kept.error
    assert await shop.selling.worker.follow_all() == 0


async def test_without_a_key_nothing_is_sold(api: MeterApi) -> None:
    body = event()
    refused = await api.anybody.post(WEBHOOK, content=body, headers=signed(body))
    assert (refused.status_code, refused.json()["code"]) == (404, "selling_off")
    terms = (await api.operator.get("/api/v1/admin/selling")).json()
    assert (terms["is_selling"], terms["mode"]) == (False, None)
