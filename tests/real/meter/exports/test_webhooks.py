"""Accounts are told of events at their webhooks: signed, once, in order, at public addresses."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from meter.exports.webhooks import outbox, webhook_worker
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import USD, Books, observed
from tests.meter_api import ADMIN, MeterApi, admit_operator, every_page, meter_api
from tests.patience import until
from tests.tls import Authority, make_authority
from tests.webhook_receiver import WebhookReceiver, receiving_webhooks

OWN = "/api/v1/billing/webhooks"
EVERYTHING = ["balance.low", "budget.reached", "key.revoked", "payment.failed"]
SCOPES = ["usage:read", "billing:write", "keys:write"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("webhooks"))


@pytest_asyncio.fixture
async def receiver(authority: Authority) -> AsyncIterator[WebhookReceiver]:
    async with receiving_webhooks(authority) as opened:
        yield opened


@pytest_asyncio.fixture
async def api(books: Books, authority: Authority) -> AsyncIterator[MeterApi]:
    """A meter that lets webhooks be on this machine."""
    await admit_operator(books.pool)
    tls = ssl.create_default_context(cafile=str(authority.ca_file))
    async with meter_api(books.pool, webhook_tls=tls, webhook_networks="127.0.0.0/8") as opened:
        yield opened


async def make(
    api: MeterApi, receiver: WebhookReceiver, user: str = "ada", path: str = "/hook", **more: Any
) -> tuple[str, str]:
    """Make a user with a webhook at the receiver; returns the user's key and the webhook's id."""
    if (await api.operator.get(f"{ADMIN}/users/{user}")).status_code == 404:
        await api.user(user, "10.00")
    key: str = (await api.key(user, scopes=SCOPES))["key"]
    body = {"url": receiver.url + path, "events": ["key.revoked", "payment.failed"], **more}
    made = await api.as_key(key, OWN, "POST", body)
    assert made.status_code == 201, made.text
    receiver.secrets[path] = made.json()["secret"]
    return key, made.json()["id"]


async def send(api: MeterApi) -> None:
    """Look for events, and send what waits as if each pause were over."""
    await api.pool.execute("UPDATE webhooks SET next_attempt_at = clock_timestamp()")
    await api.webhooks.worker.look()
    await api.webhooks.worker.send_all()


async def messages(api: MeterApi, webhook_id: str, user: str = "ada") -> list[dict[str, Any]]:
    """The messages of a webhook, oldest first."""
    path = f"{ADMIN}/users/{user}/webhooks/{webhook_id}/messages"
    return (await every_page(api.operator, path, limit=2))[::-1]


async def revoke(api: MeterApi, user: str = "ada") -> str:
    """Make a key and revoke it; returns its id."""
    key_id: str = (await api.key(user, name="build server"))["id"]
    gone = await api.operator.delete(f"{ADMIN}/users/{user}/api-keys/{key_id}")
    assert gone.status_code == 204
    return key_id


async def test_a_revoked_key_is_told_once_and_can_be_verified(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    _, webhook_id = await make(api, receiver)
    key_id = await revoke(api)
    await api.operator.delete(f"{ADMIN}/users/ada/api-keys/{key_id}")
    await send(api)
    await send(api)
    ((message_id, told),) = receiver.taken.items()
    assert (told["type"], told["data"]) == (
        "key.revoked",
        {"key_id": key_id, "name": "build server"},
    )
    assert told["timestamp"].endswith("Z")
    assert (len(receiver.bodies), receiver.refused) == (1, 0)
    (listed,) = await messages(api, webhook_id)
    assert (listed["id"], listed["state"], listed["error"]) == (message_id, "sent", None)
    assert listed["event"] == told
    # Every way to revoke a key passes the same place.
    leaked = await api.key("ada")
    assert (await api.anybody.post("/api/v1/key-reports", json={"key": leaked["key"]})).is_success
    await send(api)
    assert receiver.types() == ["key.revoked", "key.revoked"]


async def test_an_event_is_undone_with_what_caused_it(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    _, webhook_id = await make(api, receiver)
    key_id = (await api.key("ada"))["id"]
    async with api.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE credentials SET revoked_at = now() WHERE id = $1", key_id)
        await transaction.rollback()
    await send(api)
    assert await messages(api, webhook_id) == []


async def test_a_message_that_commits_while_the_queue_is_emptied_is_sent(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    await make(api, receiver)
    await revoke(api)
    key_id = (await api.key("ada"))["id"]
    receiver.hangs = asyncio.Event()
    sending = asyncio.create_task(send(api))
    await until(lambda: receiver.paths, "the message arrived")

    async def waits() -> bool:
        return sending.done() or await api.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )

    async with api.pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE credentials SET revoked_at = now() WHERE id = $1", key_id)
        receiver.hangs.set()
        # The worker has nothing to send any more, and waits for this transaction.
        await until(waits, "the worker waits for the transaction")
    await sending
    await send(api)
    assert len(receiver.taken) == 2


async def test_a_low_balance_is_told_each_time_it_falls(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    await make(api, receiver, events=["balance.low"], low_balance="5.00")
    await send(api)
    assert receiver.taken == {}
    for number, amount in enumerate(("-6.00", "-1.00", "7.00", "-9.50")):
        assert (await api.credit("ada", amount, f"move-{number}")).is_success
        await asyncio.gather(*(api.webhooks.worker.look() for _ in range(3)))
        await send(api)
    assert [one["data"] for one in receiver.taken.values()] == [
        {"balance": "4.00", "threshold": "5.00"},
        {"balance": "0.50", "threshold": "5.00"},
    ]


async def test_a_budget_is_told_once_in_a_period_and_again_for_a_higher_one(
    api: MeterApi, books: Books, receiver: WebhookReceiver
) -> None:
    payer = await books.payer("ada", USD)
    key_path = f"{ADMIN}/users/ada/api-keys/{payer.credential_id}"
    budget = {"budgets": {"total": "0.10"}}
    assert (await api.operator.patch(key_path, json=budget)).is_success
    await make(api, receiver, events=["budget.reached"], budget_percent=80)

    async def spend(cost: str) -> None:
        held = await books.held(payer, int(Decimal(cost) * USD))
        await PostgresSettlementStore(books.pool).settle([observed(held, cost)])
        await send(api)

    await spend("0.079")
    assert receiver.taken == {}
    await spend("0.001")
    await spend("0.001")
    (told,) = receiver.taken.values()
    assert told["data"]["key_id"] == payer.credential_id
    assert (told["data"]["period"], told["data"]["spent"], told["data"]["budget"]) == (
        "total",
        "0.08",
        "0.10",
    )
    await api.operator.patch(key_path, json={"budgets": {"total": "0.20"}})
    await spend("0.001")
    assert len(receiver.taken) == 1
    await spend("0.08")
    assert [one["data"]["budget"] for one in receiver.taken.values()] == ["0.10", "0.20"]


@pytest.mark.parametrize("status", [302, 401, 404, 429, 503])
async def test_a_webhook_that_fails_gets_everything_later_in_order(
    api: MeterApi, receiver: WebhookReceiver, status: int
) -> None:
    key, webhook_id = await make(api, receiver)
    revoked = [await revoke(api) for _ in range(3)]
    receiver.fault = lambda: status
    await send(api)
    await send(api)
    assert receiver.taken == {}
    # Redirects are not followed, and nothing passes the message that was not taken.
    assert (set(receiver.paths), len(set(receiver.bodies))) == ({"/hook"}, 1)
    shown = (await api.as_key(key, f"{OWN}/{webhook_id}")).json()
    assert (shown["waiting"], shown["failures"]) == (3, 2)
    assert str(status) in shown["error"]
    assert [one["attempts"] for one in await messages(api, webhook_id)] == [2, 0, 0]
    receiver.fault = lambda: None
    await send(api)
    assert [one["data"]["key_id"] for one in receiver.taken.values()] == revoked
    shown = (await api.as_key(key, f"{OWN}/{webhook_id}")).json()
    assert (shown["waiting"], shown["failures"], shown["error"]) == (0, 0, None)


async def test_the_pause_doubles_up_to_an_hour(api: MeterApi, receiver: WebhookReceiver) -> None:
    await make(api, receiver)
    await revoke(api)
    receiver.fault = lambda: 500
    pauses = []
    for _ in range(12):
        await send(api)
        pauses.append(
            await api.pool.fetchval(
                "SELECT round(extract(epoch FROM w.next_attempt_at - m.attempted_at))::int"
                " FROM webhooks w JOIN webhook_messages m ON m.webhook_id = w.id"
            )
        )
        await api.webhooks.worker.send_all()
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
    # Until the pause is over nobody is asked.
    assert len(receiver.bodies) == 12


async def test_a_message_that_is_refused_again_and_again_is_parked_and_sent_when_asked(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    key, webhook_id = await make(api, receiver)
    await revoke(api)
    await revoke(api)
    first, second = (one["id"] for one in await messages(api, webhook_id))
    receiver.fault = lambda: 400 if receiver.bodies[-1][0] == first else None
    for _ in range(webhook_worker.MOST_REFUSALS):
        await send(api)
    assert list(receiver.taken) == [second]
    parked, taken = await messages(api, webhook_id)
    assert (parked["state"], parked["attempts"], taken["state"]) == ("parked", 5, "sent")
    assert parked["error"].startswith("status 400")
    receiver.fault = lambda: None
    path = f"{OWN}/{webhook_id}/messages/{first}/resend"
    assert (await api.as_key(key, path, "POST")).status_code == 202
    await send(api)
    assert list(receiver.taken) == [second, first]


async def test_a_test_message_is_sent_once_a_minute(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    key, webhook_id = await make(api, receiver)
    asked = [await api.as_key(key, f"{OWN}/{webhook_id}/test", "POST") for _ in range(3)]
    assert {one.status_code for one in asked} == {202}
    await api.webhooks.worker.send_all()
    assert set(receiver.types()) == {"webhook.test"}
    # The minute may have turned between two of them.
    assert len(receiver.taken) <= 2


async def test_webhooks_of_others_do_not_exist(api: MeterApi, receiver: WebhookReceiver) -> None:
    _, webhook_id = await make(api, receiver)
    await revoke(api)
    (message,) = await messages(api, webhook_id)
    key, _ = await make(api, receiver, user="eve", path="/eve")
    for method, path in (
        ("GET", f"{OWN}/{webhook_id}"),
        ("DELETE", f"{OWN}/{webhook_id}"),
        ("POST", f"{OWN}/{webhook_id}/test"),
        ("GET", f"{OWN}/{webhook_id}/messages"),
        ("POST", f"{OWN}/{webhook_id}/messages/{message['id']}/resend"),
        ("GET", f"{OWN}/nonsense"),
    ):
        answer = await api.as_key(key, path, method)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    await send(api)
    # Nobody is told of another account's key.
    assert set(receiver.paths) == {"/hook"}
    reader = (await api.key("ada", scopes=["usage:read"]))["key"]
    assert (await api.as_key(reader, f"{OWN}/{webhook_id}")).status_code == 200
    assert (await api.as_key(reader, f"{OWN}/{webhook_id}", "DELETE")).status_code == 403


async def test_the_secret_is_shown_once_and_sealed(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    key, webhook_id = await make(api, receiver)
    secret = receiver.secrets["/hook"]
    await revoke(api)
    await send(api)
    for path in (OWN, f"{OWN}/{webhook_id}", f"{OWN}/{webhook_id}/messages"):
        assert secret not in (await api.as_key(key, path)).text
    audit = (await api.operator.get(f"{ADMIN}/audit-log")).text
    assert "webhook.created" in audit
    assert secret not in audit
    sealed = await api.pool.fetchval("SELECT sealed FROM webhooks")
    assert secret.encode() not in sealed
    # The seal is bound to the account and the webhook: moved elsewhere, it opens nothing.
    await api.user("eve")
    await revoke(api)
    await api.pool.execute("UPDATE webhooks SET account_id = 'eve'")
    await send(api)
    assert len(receiver.bodies) == 1


async def test_an_account_has_five_webhooks_at_most_and_deletes_them(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    key, _ = await make(api, receiver)
    body = {"url": f"{receiver.url}/more", "events": ["key.revoked"]}
    more = [await api.as_key(key, OWN, "POST", body) for _ in range(5)]
    assert [one.status_code for one in more] == [201] * 4 + [409]
    assert len((await api.as_key(key, OWN)).json()["data"]) == 5
    await revoke(api)
    for one in (await api.as_key(key, OWN)).json()["data"]:
        assert (await api.as_key(key, f"{OWN}/{one['id']}", "DELETE")).status_code == 204
    await send(api)
    assert (receiver.bodies, await api.pool.fetchval("SELECT count(*) FROM webhook_messages")) == (
        [],
        0,
    )
    refused = await api.as_key(key, OWN, "POST", {**body, "url": "http://example.com/"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    refused = await api.as_key(key, OWN, "POST", {**body, "events": ["balance.low"]})
    assert "low_balance" in refused.json()["detail"]


INSIDE = (
    "127.0.0.1",
    "localhost",
    "10.0.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "[::1]",
    "[fd00:ec2::254]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "2130706433",
    "0x7f.1",
    "no-such-name.invalid",
)


async def test_no_webhook_leads_into_our_network(
    books: Books, receiver: WebhookReceiver, authority: Authority
) -> None:
    await admit_operator(books.pool)
    tls = ssl.create_default_context(cafile=str(authority.ca_file))
    port = receiver.url.rsplit(":", 1)[1]
    async with meter_api(books.pool, webhook_tls=tls) as api:
        webhooks = {}
        for number, host in enumerate(INSIDE):
            user = await api.user(f"user-{number}")
            body = {"url": f"https://{host}:{port}/hook", "events": ["key.revoked"]}
            made = await api.operator.post(f"{ADMIN}/users/{user}/webhooks", json=body)
            assert made.status_code == 201, made.text
            webhooks[user] = made.json()["id"]
            await revoke(api, user)
        await send(api)
        assert receiver.paths == []
        for user, webhook_id in webhooks.items():
            (message,) = await messages(api, webhook_id, user)
            assert message["state"] == "waiting"
            # One reason for all: it tells nobody which names and addresses there are.
            assert message["error"] == (
                "it cannot be connected to (no name server knows it, or its address is not "
                "allowed here)"
            )


async def test_a_slow_webhook_delays_no_other_and_two_meters_send_once(
    api: MeterApi, receiver: WebhookReceiver
) -> None:
    await make(api, receiver)
    await revoke(api)
    receiver.hangs = asyncio.Event()
    slow = asyncio.create_task(api.webhooks.worker.send_all())
    await until(lambda: receiver.paths, "the message arrived")
    # Another meter finds nothing to send.
    await api.webhooks.worker.send_all()
    receiver.hangs.set()
    await slow
    assert (len(receiver.bodies), len(receiver.taken)) == (1, 1)


async def test_old_messages_are_forgotten_but_not_what_was_told_of_a_total_budget(
    api: MeterApi, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FORGOTTEN_AT_ONCE", 2)
    _, webhook_id = await make(api, receiver)
    for _ in range(3):
        await revoke(api)
    await api.pool.execute(
        "INSERT INTO webhook_messages (webhook_id, type, cause, body)"
        " VALUES ($1, 'budget.reached', 'k:total:1970-01-01:5', '{}')",
        webhook_id,
    )
    await api.pool.execute("UPDATE webhook_messages SET created_at = now() - interval '36 days'")
    await revoke(api)
    await api.webhooks.worker._forget()
    kept = [one["type"] for one in await messages(api, webhook_id)]
    assert kept == ["budget.reached", "key.revoked"]
