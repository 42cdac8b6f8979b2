"""The queue of unknown usage, the sweep and the policy on a real Postgres."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from meter.clock import ManualClock
from meter.errors import ProviderUnavailable, StoreUnavailable, UnreadableRecord
from meter.holds.hold import HoldPlaced
from meter.holds.sweep_store import SweepStore
from meter.ingest.metrics import IngestMetrics
from meter.ledger.verification_store import VerificationStore
from meter.lookups.pending import ReportedGeneration
from meter.lookups.queue import LookupQueue
from meter.lookups.worker import WATCH_FOR, LookupMetrics, LookupWorker
from meter.process.crash_points import NoCrashPoints
from meter.settlement.changes import SettlementChanges
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.review_store import SettlementReviewStore
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.endpoints import RERANK
from meter.usage.usage import Observation, ReportedUsage, TokenCounts
from tests.books import NEVER_REACHED, USD, Books, Payer, assumed_charge, observed
from tests.patience import WAIT_S

AT_ONCE = LookupTerms(timedelta(0), timedelta(hours=1))
NO_PATIENCE = LookupTerms(timedelta(0), timedelta(0))
NO_CRASH = NoCrashPoints()


def usage(cost_usd: str) -> ReportedUsage:
    """The records that the provider has."""
    return ReportedUsage(TokenCounts(prompt=7, completion=3), Decimal(cost_usd))


class Provider:
    """A provider's own records; `is_away` makes it fail."""

    def __init__(self, records: Mapping[str, str] | None = None, is_away: bool = False) -> None:
        self.records = dict(records or {})
        self.is_away = is_away
        self.asked: list[str] = []

    async def find_usage(self, provider: str, generation_id: str) -> ReportedUsage | None:
        """The usage on record; None where there is none yet."""
        self.asked.append(generation_id)
        if self.is_away:
            raise ProviderUnavailable("away", retry_after_s=5)
        cost = self.records.get(generation_id)
        return None if cost is None else usage(cost)


class LookupSetup:
    """A worker over real stores, and the books that it works for."""

    def __init__(
        self,
        books: Books,
        provider: Provider,
        terms: LookupTerms = AT_ONCE,
        has_reports: bool = False,
    ) -> None:
        self.books = books
        self.clock = ManualClock(datetime.now(UTC))
        self.lookups = LookupQueue(books.pool, terms, "openrouter")
        self.settlements = PostgresSettlementStore(books.pool, terms)
        self.sweeping = SweepStore(books.pool, terms.patience, NO_CRASH)
        self.registry = CollectorRegistry()
        self.worker = LookupWorker(
            self.lookups,
            self.settlements,
            provider.find_usage,
            self.clock,
            LookupMetrics(CollectorRegistry()),
            IngestMetrics(self.registry).count,
            NO_CRASH,
            per_second=10,
            has_reports=has_reports,
        )

    async def due_now(self) -> None:
        """Let every waiting look-up be due."""
        await self.books.pool.execute("UPDATE lookups SET due_at = clock_timestamp()")

    async def waiting(self) -> int:
        """Return the number of look-ups."""
        count: int = await self.books.pool.fetchval("SELECT count(*) FROM lookups")
        return count

    async def check(self) -> None:
        """The books agree with themselves."""
        assert (await VerificationStore(self.books.pool).verify()).failures == ()


@pytest.fixture
async def payer(books: Books) -> Payer:
    """An account with 10 USD."""
    return await books.payer("alice", 10 * USD)


async def test_unknown_usage_is_settled_by_the_providers_record(books: Books, payer: Payer) -> None:
    provider = Provider()
    setup = LookupSetup(books, provider)
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, usage=None)])
    assert await books.state(hold_id) == "unknown"
    assert await setup.worker.look_up(10) == 1
    assert await books.state(hold_id) == "unknown", "there is no record yet"
    provider.records["gen-1"] = "0.25"
    await setup.due_now()
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "settled"
    assert await books.funds("alice") == (10 * USD - USD // 4, 0, 0)
    booked = {"kind": "settlement", "source": "lookup"}
    assert setup.registry.get_sample_value("tollkeeper_bookings_total", booked) == 1
    assert await setup.waiting() == 0
    await setup.check()


async def test_a_zero_on_the_providers_record_is_believed(books: Books, payer: Payer) -> None:
    setup = LookupSetup(books, Provider({"gen-1": "0"}))
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, "0")])
    assert await books.state(hold_id) == "unknown"
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "settled"
    assert await books.funds("alice") == (10 * USD, 0, 0)
    await setup.check()


async def test_an_outage_of_the_provider_takes_nothing_from_the_patience(
    books: Books, payer: Payer
) -> None:
    provider = Provider(is_away=True)
    setup = LookupSetup(books, provider, LookupTerms(timedelta(0), timedelta(seconds=1)))
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, usage=None)])
    await setup.worker.look_up(10)
    left = await books.pool.fetchval("SELECT deadline_at - clock_timestamp() FROM lookups")
    assert left > timedelta(seconds=4), "it asked us to wait 5 s"
    assert await books.state(hold_id) == "unknown"


async def test_what_the_provider_has_no_record_of_is_charged_provisionally_and_corrected(
    books: Books, payer: Payer
) -> None:
    provider = Provider()
    setup = LookupSetup(books, provider, NO_PATIENCE)
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, usage=None)])
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "settled"
    kinds = await books.pool.fetch("SELECT kind, source, price_source FROM usage_records")
    assert [tuple(row) for row in kinds] == [("provisional", "policy", "estimate")]
    assert (await books.funds("alice"))[0] == 10 * USD - assumed_charge(USD)
    provider.records["gen-1"] = "0.1"
    await setup.due_now()
    await setup.worker.look_up(10)
    assert await books.funds("alice") == (10 * USD - USD // 10, 0, 0)
    templates = await books.pool.fetch("SELECT template FROM postings WHERE hold_id = $1", hold_id)
    assert sorted(row["template"] for row in templates) == ["correction", "reversal", "settlement"]
    assert await setup.waiting() == 0
    await setup.check()


async def test_without_an_id_a_report_tells_where_to_ask(books: Books, payer: Payer) -> None:
    setup = LookupSetup(books, Provider({"gen-9": "0.5"}), has_reports=True)
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, usage=None, generation_id=None)])
    assert await setup.worker.look_up(10) == 0, "nobody to ask yet"
    report = ReportedGeneration(hold_id, "gen-9", None)
    assert await setup.lookups.note([report, report]) == 1
    assert await setup.lookups.note([report]) == 0
    await setup.worker.look_up(10)
    assert await books.funds("alice") == (10 * USD - USD // 2, 0, 0)
    await setup.check()


async def test_silence_means_nothing_of_a_provider_that_was_not_heard(
    books: Books, payer: Payer
) -> None:
    setup = LookupSetup(books, Provider(), NO_PATIENCE, has_reports=True)
    hold_id = await books.held(payer, USD)
    await setup.lookups.note([ReportedGeneration(uuid4(), "gen-1", None)])
    await setup.settlements.settle([observed(hold_id, usage=None, generation_id=None)])
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "settled"
    assert (await books.funds("alice"))[0] == 10 * USD - assumed_charge(USD)
    await setup.check()


async def test_an_entry_that_comes_after_the_limit_tells_how_much_was_seen(
    books: Books, payer: Payer
) -> None:
    setup = LookupSetup(books, Provider())
    hold_id = await books.held(payer, USD)
    await books.pool.execute("UPDATE holds SET expires_at = clock_timestamp()")
    assert await setup.sweeping.expire() == 1
    late = observed(hold_id, usage=None, generation_id=None, is_streaming=True)
    await setup.settlements.settle([late, late])
    (row,) = await books.pool.fetch("SELECT reason, observed IS NOT NULL AS seen FROM lookups")
    assert row["seen"]
    reason = await books.pool.fetchval("SELECT unknown_reason FROM holds")
    assert reason == "no_usage"


async def test_an_account_with_many_look_ups_leaves_room_for_others(
    books: Books, payer: Payer
) -> None:
    provider = Provider()
    setup = LookupSetup(books, provider)
    other = await books.payer("bob", USD)
    many = [
        observed(await books.held(payer, USD // 100), usage=None, generation_id=f"many-{number}")
        for number in range(30)
    ]
    await setup.settlements.settle(many)
    one = observed(await books.held(other, USD // 100), usage=None, generation_id="one")
    await setup.settlements.settle([one])
    await setup.worker.look_up(2)
    assert "one" in provider.asked


async def test_silence_of_a_provider_that_reports_voids(books: Books, payer: Payer) -> None:
    setup = LookupSetup(books, Provider({"gen-9": "0.5"}), NO_PATIENCE, has_reports=True)
    hold_id, other = await books.held(payer, USD), await books.held(payer, USD)
    await setup.lookups.note([ReportedGeneration(other, "gen-1", None)])
    await books.holds.release([other])
    await setup.settlements.settle([observed(hold_id, usage=None, generation_id=None)])
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "expired"
    assert await books.funds("alice") == (10 * USD, 0, 0)
    # The report comes after all: what was billed is posted, though nothing is held for it.
    assert await setup.lookups.note([ReportedGeneration(hold_id, "gen-9", None)]) == 1
    await setup.worker.look_up(10)
    assert await books.funds("alice") == (10 * USD - USD // 2, 0, 0)
    assert await books.pool.fetchval("SELECT kind FROM usage_records") == "late"
    await setup.check()


async def test_silence_means_nothing_where_a_request_takes_no_tag(
    books: Books, payer: Payer
) -> None:
    setup = LookupSetup(books, Provider(), NO_PATIENCE, has_reports=True)
    hold_id, other = await books.held(payer, USD), await books.held(payer, USD)
    await books.pool.execute("UPDATE holds SET endpoint = $2 WHERE id = $1", hold_id, RERANK)
    await setup.lookups.note([ReportedGeneration(other, "gen-1", None)])
    await books.holds.release([other])
    await setup.settlements.settle([observed(hold_id, usage=None, generation_id=None)])
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "settled"


async def test_a_report_of_another_cost_has_the_record_asked_for(
    books: Books, payer: Payer
) -> None:
    setup = LookupSetup(books, Provider({"gen-1": "0.3"}), has_reports=True)
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, "0.2")])
    assert await setup.lookups.note([ReportedGeneration(hold_id, "gen-1", 2 * USD // 10)]) == 0
    assert await setup.lookups.note([ReportedGeneration(hold_id, "gen-1", 3 * USD // 10)]) == 1
    await setup.worker.look_up(10)
    assert await books.funds("alice") == (10 * USD - 3 * USD // 10, 0, 0)
    costs = await books.pool.fetch(
        "SELECT source, provider_cost_picos FROM usage_records ORDER BY revision"
    )
    assert [tuple(row) for row in costs] == [("stream", USD // 5), ("lookup", USD // 10)]
    assert await setup.lookups.note([ReportedGeneration(hold_id, "gen-1", 9)]) == 0
    await setup.check()


async def test_a_report_that_comes_before_a_wrong_entry_is_not_forgotten(
    books: Books, payer: Payer
) -> None:
    provider = Provider({"gen-1": "0.3", "gen-2": "0.3"})
    setup = LookupSetup(books, provider)
    wrong, right = await books.held(payer, USD), await books.held(payer, USD)
    cost = 3 * USD // 10
    reports = [ReportedGeneration(wrong, "gen-1", cost), ReportedGeneration(right, "gen-2", cost)]
    assert await setup.lookups.note(reports) == 2
    await setup.settlements.settle([observed(wrong, "0.1"), observed(right, "0.3")])
    await setup.worker.look_up(10)
    assert provider.asked == ["gen-1"]
    assert await books.funds("alice") == (10 * USD - 2 * cost, 0, 0)
    assert await setup.waiting() == 0
    await setup.check()


async def test_a_look_up_of_what_was_settled_meanwhile_asks_nobody(
    books: Books, payer: Payer
) -> None:
    provider = Provider({"gen-1": "0.3"})
    setup = LookupSetup(books, provider)
    hold_id = await books.held(payer, USD)
    assert await setup.lookups.note([ReportedGeneration(hold_id, "gen-1", None)]) == 1
    await setup.settlements.settle([observed(hold_id, "0.3")])
    await setup.worker.look_up(10)
    assert provider.asked == []
    assert await setup.waiting() == 0


async def test_two_workers_never_take_the_same_look_up(books: Books, payer: Payer) -> None:
    provider = Provider({f"gen-{number}": "0.001" for number in range(40)})
    setup, other = LookupSetup(books, provider), LookupSetup(books, provider)
    endings = [
        observed(await books.held(payer, USD // 100), usage=None, generation_id=f"gen-{number}")
        for number in range(40)
    ]
    await setup.settlements.settle(endings)
    async with asyncio.timeout(WAIT_S):
        # A claim passes over what others claim at that moment, and may find nothing.
        while await setup.waiting():
            await asyncio.gather(*(one.worker.look_up(8) for one in (setup, other) * 4))
    assert sorted(provider.asked) == sorted(provider.records)
    assert await books.funds("alice") == (10 * USD - 40 * USD // 1000, 0, 0)
    await setup.check()


async def test_a_hold_past_its_limit_is_found_out_about(books: Books, payer: Payer) -> None:
    setup = LookupSetup(books, Provider(), NO_PATIENCE)
    hold_id, young = await books.held(payer, USD), await books.held(payer, USD)
    await books.pool.execute(
        "UPDATE holds SET expires_at = clock_timestamp() WHERE id = $1", hold_id
    )
    assert await setup.sweeping.expire() == 1
    assert (await books.state(hold_id), await books.state(young)) == ("unknown", "open")
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "settled"
    # No log told of it: the truth that comes late replaces what the policy charged.
    await setup.settlements.settle([observed(hold_id, "0.125")])
    assert await books.funds("alice") == (10 * USD - USD // 8, USD, 0)
    await setup.check()


async def test_an_entry_that_says_it_never_ran_undoes_what_policy_charged(
    books: Books, payer: Payer
) -> None:
    setup = LookupSetup(books, Provider(), NO_PATIENCE)
    hold_id = await books.held(payer, USD)
    await books.pool.execute("UPDATE holds SET expires_at = clock_timestamp()")
    await setup.sweeping.expire()
    await setup.worker.look_up(10)
    assert (await books.funds("alice"))[0] == 10 * USD - assumed_charge(USD)
    await setup.settlements.settle([observed(hold_id, **NEVER_REACHED)])
    assert await books.funds("alice") == (10 * USD, 0, 0)
    await setup.check()


async def test_a_request_that_was_never_decided_frees_its_hold(books: Books, payer: Payer) -> None:
    setup = LookupSetup(books, Provider())
    request_id = uuid4()
    hold_id = await _held_for(books, payer, request_id)
    other = await _held_for(books, payer, uuid4())
    await setup.sweeping.note_undecided([request_id, uuid4(), request_id])
    await setup.sweeping.note_undecided([request_id])
    assert await setup.sweeping.release_undecided() == 1
    assert (await books.state(hold_id), await books.state(other)) == ("released", "open")
    late = await _held_for(books, payer, request_id)
    assert await setup.sweeping.release_undecided() == 1, "an authz that slept places it late"
    assert await books.state(late) == "released"
    await setup.check()


async def test_old_notes_of_undecided_requests_are_forgotten(books: Books) -> None:
    await books.pool.execute(
        "INSERT INTO undecided_requests (request_id, seen_at) VALUES"
        " (gen_random_uuid(), now() - interval '31 minutes'),"
        " (gen_random_uuid(), now() - interval '29 minutes')"
    )
    await LookupSetup(books, Provider()).sweeping.forget_undecided()
    assert await books.pool.fetchval("SELECT count(*) FROM undecided_requests") == 1


async def _held_for(books: Books, payer: Payer, request_id: UUID) -> UUID:
    answer = await books.holds.place(replace(books.request(payer, USD), request_id=request_id))
    assert isinstance(answer, HoldPlaced)
    return answer.hold_id


async def test_a_record_of_nought_that_is_priced_later_is_corrected(
    books: Books, payer: Payer
) -> None:
    provider = Provider({"gen-1": "0"})
    setup = LookupSetup(books, provider)
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, "0")])
    await setup.worker.look_up(10)
    assert await books.funds("alice") == (10 * USD, 0, 0)
    for price, left in (("0", 10 * USD), ("0.25", 10 * USD - USD // 4)):
        provider.records["gen-1"] = price
        assert await setup.waiting() == 1
        await setup.due_now()
        await setup.worker.look_up(10)
        assert await books.funds("alice") == (left, 0, 0)
    assert await setup.waiting() == 0
    await setup.check()


async def test_a_meter_that_dies_after_settling_nought_still_finds_the_price(
    books: Books, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Provider({"gen-1": "0"})
    setup = LookupSetup(books, provider)
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, "0")])
    settle = setup.settlements.settle

    async def settle_and_die(observations: Sequence[Observation]) -> list[SettlementChanges]:
        await settle(observations)
        raise StoreUnavailable("the process ended after the commit")

    with monkeypatch.context() as dying:
        dying.setattr(setup.settlements, "settle", settle_and_die)
        with pytest.raises(StoreUnavailable):
            await setup.worker.look_up(10)
    assert await books.funds("alice") == (10 * USD, 0, 0)
    provider.records["gen-1"] = "0.25"
    await setup.due_now()
    await setup.worker.look_up(10)
    assert await books.funds("alice") == (10 * USD - USD // 4, 0, 0)
    assert await setup.waiting() == 0


async def test_a_record_of_nought_is_asked_for_during_a_stated_time(
    books: Books, payer: Payer
) -> None:
    provider = Provider({"gen-1": "0"})
    setup = LookupSetup(books, provider)
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, "0")])
    await setup.worker.look_up(10)
    setup.clock.advance(WATCH_FOR.total_seconds() + 60)
    await setup.due_now()
    await setup.worker.look_up(10)
    assert (len(provider.asked), await setup.waiting()) == (2, 0)


async def test_an_error_without_a_record_is_let_go_soon_and_can_be_corrected(
    books: Books, payer: Payer
) -> None:
    provider = Provider()
    setup = LookupSetup(books, provider, LookupTerms(timedelta(0)))
    hold_id = await books.held(payer, USD)
    failed = observed(hold_id, usage=None, provider_status=503, status_code=503)
    await setup.settlements.settle([failed])
    row = await books.pool.fetchrow(
        "SELECT reason, deadline_at - created_at < interval '31 s' AS is_soon FROM lookups"
    )
    assert row is not None
    assert tuple(row) == ("failed", True)
    await books.pool.execute("UPDATE lookups SET deadline_at = clock_timestamp()")
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "expired"
    assert await books.funds("alice") == (10 * USD, 0, 0)
    (decided,) = await SettlementReviewStore(books.pool).list_policy_decisions(None, 10)
    assert (decided.rule, decided.is_charge) == ("failed", False)
    provider.records["gen-1"] = "0.25"
    await setup.due_now()
    await setup.worker.look_up(10)
    assert [kind for _, kind, *_ in await books.records(hold_id)] == ["late"]
    assert await books.funds("alice") == (10 * USD - USD // 4, 0, 0)
    await setup.check()


async def test_a_record_that_cannot_be_read_is_as_good_as_none(books: Books, payer: Payer) -> None:
    async def find_usage(provider: str, generation_id: str) -> ReportedUsage | None:
        raise UnreadableRecord(generation_id)

    provider = Provider()
    provider.find_usage = find_usage  # type: ignore[method-assign]
    setup = LookupSetup(books, provider, NO_PATIENCE)
    hold_id = await books.held(payer, USD)
    await setup.settlements.settle([observed(hold_id, usage=None)])
    await setup.worker.look_up(10)
    assert await books.state(hold_id) == "settled", "the policy has decided"
    assert [kind for _, kind, *_ in await books.records(hold_id)] == ["provisional"]
