"""Usage reaches other systems once, in order, whatever they and we do meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from meter.clock import SystemClock
from meter.errors import RowLocked
from meter.exports import horizon, sink_worker
from meter.exports.sink_worker import SinkWorker
from meter.history.month_store import HistoryStore
from meter.history.retention import History, Retention, months_before
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, Payer, observed
from tests.meter_api import ADMIN, MeterApi
from tests.receiver import Receiver, receiving

SINKS = f"{ADMIN}/sinks"


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


async def spend(books: Books, payer: Payer, requests: int, cost: str = "0.001") -> list[Any]:
    """Settle so many requests; returns their holds."""
    held = [await books.held(payer, USD // 100, markup_bps=1_000) for _ in range(requests)]
    await PostgresSettlementStore(books.pool).settle([observed(one, cost) for one in held])
    return held


async def make(api: MeterApi, receiver: Receiver, kind: str = "lago", **more: Any) -> None:
    """Make a sink at the receiver."""
    own = {"source": "tollkeeper"} if kind == "cloudevents" else {"plan_code": "llm"}
    url = receiver.url + ("/events" if kind == "cloudevents" else "")
    body = {"kind": kind, "url": url, "credential": "secret-of-the-sink", **own, **more}
    made = await api.operator.put(f"{SINKS}/{kind}", json=body)
    assert made.status_code == 201, made.text


async def sent(api: MeterApi, kind: str = "lago") -> dict[str, Any]:
    """Send what is due, at once; returns the sink after it."""
    await api.pool.execute("UPDATE sinks SET next_attempt_at = clock_timestamp()")
    await api.sinks.worker.send_all()
    answer = await api.operator.get(f"{SINKS}/{kind}")
    found: dict[str, Any] = answer.json()
    return found


def names(receiver: Receiver) -> list[str]:
    """The records that the receiver has, in the order in which they came."""
    return [(one.get("transaction_id") or one["id"]) for one in receiver.taken.values()]


async def recorded(books: Books) -> list[str]:
    """The records in the books, in order."""
    rows = await books.pool.fetch(
        "SELECT seq, hold_id AS id, revision FROM usage_rows"
        " UNION ALL SELECT seq, id, 0 FROM settlements ORDER BY 1"
    )
    return [f"{row['id']}:{row['revision']}" for row in rows]


@pytest.mark.parametrize("kind", ["lago", "cloudevents"])
async def test_every_record_arrives_once_and_in_order(
    api: MeterApi, books: Books, receiver: Receiver, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_worker, "MOST_EVENTS", 3)
    monkeypatch.setattr(sink_worker, "WINDOW", 4)
    ada, bob = await books.payer("ada", USD), await books.payer("bob", USD)
    await spend(books, ada, 1)
    await make(api, receiver, kind)
    first = await spend(books, ada, 5)
    await spend(books, bob, 3)
    # A correction is an event of its own, with the difference.
    late = observed(first[0], "0.003", source=Source.LOOKUP)
    await PostgresSettlementStore(books.pool).settle([late])
    sink = await sent(api, kind)
    assert names(receiver) == (await recorded(books))[1:]
    assert (sink["sent"], sink["parked"], sink["behind"], sink["lag_seconds"]) == (9, 0, 0, 0)
    assert receiver.credentials == {"Bearer secret-of-the-sink"}
    events = list(receiver.taken.values())
    if kind == "lago":
        cents = sum(Decimal(one["precise_total_amount_cents"]) for one in events)
        assert cents == Decimal("0.11") * 8 + Decimal("0.22")
        assert [one for one in receiver.made if one[0] == "subscription"] == [
            ("subscription", "ada"),
            ("subscription", "bob"),
        ]
        assert {one["external_subscription_id"] for one in events} == {"ada", "bob"}
    else:
        assert [one["subject"] for one in events] == ["ada"] * 5 + ["bob"] * 3 + ["ada"]
        assert sum(Decimal(one["data"]["charge"]) for one in events) == Decimal("0.011")
    # Nothing is due, so nobody is asked.
    bodies = len(receiver.bodies)
    await sent(api, kind)
    assert len(receiver.bodies) == bodies


@pytest.mark.parametrize("fault", [0, 302, 401, 429, 503, -500])
@pytest.mark.parametrize("kind", ["lago", "cloudevents"])
async def test_a_sink_that_fails_loses_and_doubles_nothing(
    api: MeterApi, books: Books, receiver: Receiver, kind: str, fault: int
) -> None:
    payer = await books.payer("ada", USD)
    await make(api, receiver, kind)
    await spend(books, payer, 2)
    receiver.fault = lambda: fault
    sink = await sent(api, kind)
    assert (sink["sent"], sink["failures"]) == (0, 1)
    assert sink["error"]
    # At a second attempt Lago tells that it has them; a CloudEvents sink passes over them.
    await sent(api, kind)
    await spend(books, payer, 2)
    receiver.fault = lambda: None
    sink = await sent(api, kind)
    assert names(receiver) == await recorded(books)
    assert (sink["behind"], sink["parked"], sink["failures"], sink["error"]) == (0, 0, 0, None)
    # An event is the same bytes whenever it is sent.
    assert receiver.bodies[0] == receiver.bodies[1]


async def test_poison_is_found_parked_and_sent_again_when_asked(
    api: MeterApi, books: Books, receiver: Receiver
) -> None:
    payer = await books.payer("ada", USD)
    await make(api, receiver)
    held = await spend(books, payer, 7)
    poison = {f"{held[2]}:0", f"{held[5]}:0"}
    receiver.is_poison = lambda one: one["transaction_id"] in poison
    sink = await sent(api)
    everything = await recorded(books)
    assert names(receiver) == [one for one in everything if one not in poison]
    assert (sink["sent"], sink["parked"], sink["behind"]) == (5, 2, 0)
    parked = (await api.operator.get(f"{SINKS}/lago/parked")).json()["data"]
    assert {one["event"]["transaction_id"] for one in parked} == poison
    assert {one["error"] for one in parked} == {'status 422: {"error": "no such subscription"}'}
    # Sent again, one is refused again, and another is taken.
    poison.remove(parked[0]["event"]["transaction_id"])
    answer = await api.operator.post(f"{SINKS}/lago/parked/replay", json={})
    assert answer.json() == {"events": 2}
    assert (await sent(api))["parked"] == 1
    assert len(receiver.taken) == 6
    path = f"{SINKS}/lago/parked/{parked[1]['position']}"
    assert (await api.operator.delete(path)).status_code == 204
    assert (await api.operator.delete(path)).status_code == 404
    assert (await sent(api))["parked"] == 0


async def test_a_sink_that_refuses_everything_is_not_emptied_into_the_parked_events(
    api: MeterApi, books: Books, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.sinks.worker, "_most_parked", 2)
    await make(api, receiver, "cloudevents")
    await spend(books, await books.payer("ada", USD), 5)
    receiver.is_poison = lambda _: True
    sink = await sent(api, "cloudevents")
    assert (sink["parked"], sink["failures"]) == (2, 1)
    assert sink["error"].startswith("2 of its events are parked already")
    receiver.is_poison = lambda _: False
    assert (await sent(api, "cloudevents"))["behind"] == 0
    assert len(receiver.taken) == 3


async def test_a_record_that_commits_late_is_not_passed_over(
    api: MeterApi, books: Books, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(horizon, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(horizon, "MOST_PAUSE_S", 0.0)
    ada, bob = await books.payer("ada", USD), await books.payer("bob", USD)
    await make(api, receiver)
    held = await books.held(ada, USD // 100)
    async with books.pool.acquire() as late:
        transaction = late.transaction()
        await transaction.start()
        await late.execute(
            "SELECT settled_ids FROM settle_holds("
            "ARRAY[$1::uuid], ARRAY[1000], ARRAY['gen'], ARRAY[now()],"
            " ARRAY[1], ARRAY[1], ARRAY[0], ARRAY[0], ARRAY[0], ARRAY[1], ARRAY[1], ARRAY[200],"
            " ARRAY[''], ARRAY[false], ARRAY['stream'], '{}')",
            held,
        )
        await spend(books, bob, 2)
        # The later positions are committed, and wait for the earlier one.
        with pytest.raises(RowLocked):
            await horizon.find_horizon(books.pool)
        await sent(api)
        assert receiver.taken == {}
        await transaction.commit()
    await sent(api)
    assert names(receiver) == await recorded(books)
    assert names(receiver)[0] == f"{held}:0"


async def test_history_waits_for_a_sink_that_is_away(
    api: MeterApi, books: Books, receiver: Receiver
) -> None:
    payer = await books.payer("ada", USD)
    await make(api, receiver)
    today = datetime.now(UTC).date()
    old = months_before(today, 4)
    placed_at = datetime(old.year, old.month, 5, tzinfo=UTC)
    held = await books.held(payer, USD // 100, placed_at=placed_at)
    await PostgresSettlementStore(books.pool).settle([observed(held, "0.001")])
    registry = CollectorRegistry()
    store = HistoryStore(books.pool)
    assert await store.list_sinks_behind(old) == ["lago"]
    assert await store.list_sinks_behind(months_before(today, 3)) == []
    history = History(store, Retention(2), registry, SystemClock())
    await books.pool.execute("SELECT 1")
    assert "lago" in await store.list_sinks_behind(old)
    assert [one for one in await history.tend() if one.month >= old] == []
    assert (await api.operator.post(f"{SINKS}/lago/pause")).json()["state"] == "paused"
    assert await store.list_sinks_behind(old) == ["lago"]
    await api.operator.post(f"{SINKS}/lago/resume")
    await sent(api)
    assert await store.list_sinks_behind(old) == []


async def test_two_workers_do_not_send_to_one_sink_at_once(
    api: MeterApi, books: Books, receiver: Receiver
) -> None:
    await make(api, receiver, "cloudevents")
    await spend(books, await books.payer("ada", USD), 3)
    other = SinkWorker(books.pool, api.sinks.store, api.sinks.delivery, CollectorRegistry())
    await asyncio.gather(api.sinks.worker.send_all(), other.send_all())
    assert len(receiver.bodies) == 1
    assert len(receiver.taken) == 3


async def test_a_worker_that_stops_leaves_the_sink_to_the_next_one(
    api: MeterApi, books: Books, receiver: Receiver
) -> None:
    await make(api, receiver, "cloudevents")
    await spend(books, await books.payer("ada", USD), 3)
    hangs, goes_on = asyncio.Event(), asyncio.Event()

    class Hanging:
        async def deliver(self, *_: object) -> None:
            hangs.set()
            await goes_on.wait()

    stuck = SinkWorker(books.pool, api.sinks.store, Hanging(), CollectorRegistry())  # type: ignore[arg-type]
    task = asyncio.create_task(stuck.run())
    await hangs.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await sent(api, "cloudevents")
    assert len(receiver.taken) == 3


async def test_pausing_changing_and_ending_a_sink(
    api: MeterApi, books: Books, receiver: Receiver
) -> None:
    payer = await books.payer("ada", USD)
    await spend(books, payer, 2)
    await make(api, receiver, from_beginning=True)
    await api.operator.post(f"{SINKS}/lago/pause")
    await sent(api)
    assert receiver.bodies == []
    changed = {"kind": "lago", "url": receiver.url, "event_code": "llm_usage"}
    assert (await api.operator.put(f"{SINKS}/lago", json=changed)).status_code == 200
    assert (await api.operator.post(f"{SINKS}/lago/test")).json() == {"ok": True, "error": None}
    await api.operator.put(f"{SINKS}/lago", json={**changed, "event_code": "other"})
    tested = (await api.operator.post(f"{SINKS}/lago/test")).json()
    assert not tested["ok"]
    assert "404" in tested["error"]
    await api.operator.post(f"{SINKS}/lago/resume")
    assert (await sent(api))["sent"] == 2
    # The stored credential stayed, and is shown nowhere.
    assert receiver.credentials == {"Bearer secret-of-the-sink"}
    listed = await api.operator.get(SINKS)
    audit = await api.operator.get(f"{ADMIN}/audit-log")
    assert "secret-of-the-sink" not in listed.text + audit.text
    sealed = await books.pool.fetchval("SELECT sealed FROM sinks")
    assert b"secret-of-the-sink" not in sealed
    ended = (await api.operator.post(f"{SINKS}/lago/end")).json()
    assert (ended["state"], ended["has_credential"]) == ("ended", False)
    for answer in (
        await api.operator.post(f"{SINKS}/lago/resume"),
        await api.operator.put(f"{SINKS}/lago", json=changed),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    await spend(books, payer, 1)
    await sent(api)
    assert len(receiver.taken) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "lago", "url": "ftp://lago.example"},
        {"kind": "lago", "url": "https://user:pass@lago.example"},
        {"kind": "lago", "url": "https://lago.example/?a=b"},
        {"kind": "lago", "url": "https://lago.example", "source": "x"},
        {"kind": "cloudevents", "url": "https://meter.example"},
        {"kind": "cloudevents", "url": "https://m.example", "source": "x", "plan_code": "p"},
        {"kind": "kafka", "url": "https://meter.example"},
        {"kind": "lago", "url": "https://lago.example", "credential": "a b"},
    ],
)
async def test_a_sink_that_cannot_be_one_is_refused(api: MeterApi, body: dict[str, str]) -> None:
    refused = await api.operator.put(f"{SINKS}/one", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), refused.text
    assert (await api.operator.get(f"{SINKS}/one")).status_code == 404


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "0.0.0.0"],
)
async def test_no_sink_is_where_machines_have_their_credentials(
    api: MeterApi, books: Books, address: str
) -> None:
    body = {"kind": "lago", "url": f"http://{address}/"}
    assert (await api.operator.put(f"{SINKS}/lago", json=body)).status_code == 201
    tested = (await api.operator.post(f"{SINKS}/lago/test")).json()
    assert (tested["ok"], "not allowed" in tested["error"]) == (False, True), tested
