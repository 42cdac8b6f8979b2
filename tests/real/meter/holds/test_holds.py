"""Holds on a real Postgres: never more than the balance, never orphaned, judged at the source."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from meter.audit.events import Actor
from meter.errors import Overloaded, StoreUnavailable
from meter.holds.hold import HoldAnswer, HoldPlaced, HoldRefused, Refusal
from meter.holds.hold_store import BATCH_LIMIT, PostgresHolds
from meter.identity.keys.key_rights import Administrator
from meter.identity.keys.key_service import KeyService
from meter.identity.keys.key_store import KeyStore
from meter.postgres.pool import KEYED_SESSION, open_pool
from tests.books import LIFETIME, PEPPER, PROTECTED, USD, Books, refused_by_database
from tests.patience import WAIT_S
from tests.servers import Database


async def test_a_hold_sets_the_estimate_aside(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    answer = await books.holds.place(books.request(payer, 2 * USD))
    assert isinstance(answer, HoldPlaced)
    assert answer.amount_picos == 2 * USD
    assert await books.funds("alice") == (5 * USD, 2 * USD, 0)


async def test_a_hold_above_what_is_available_is_refused(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    await books.held(payer, 4 * USD)
    answer = await books.holds.place(books.request(payer, 2 * USD))
    assert answer == HoldRefused(Refusal.INSUFFICIENT, 2 * USD, USD)
    assert await books.funds("alice") == (5 * USD, 4 * USD, 0)


@pytest.mark.parametrize(("callers", "affordable"), [(200, 1), (100, 7)])
async def test_concurrent_holds_never_overspend(
    books: Books, callers: int, affordable: int
) -> None:
    payer = await books.payer("alice", affordable * USD)
    answers = await asyncio.gather(
        *(books.holds.place(books.request(payer, USD)) for _ in range(callers))
    )
    assert sum(isinstance(answer, HoldPlaced) for answer in answers) == affordable
    assert await books.funds("alice") == (affordable * USD, affordable * USD, 0)


async def test_two_processes_never_overspend_together(books: Books) -> None:
    payer = await books.payer("alice", 10 * USD)
    other = PostgresHolds(books.pool, LIFETIME)
    answers = await asyncio.gather(
        *(
            store.place(books.request(payer, USD))
            for _ in range(60)
            for store in (books.holds, other)
        )
    )
    assert sum(isinstance(answer, HoldPlaced) for answer in answers) == 10
    await other.close()


async def test_a_hold_waits_for_another_one_of_its_account(books: Books) -> None:
    """A hold that another process is about to commit counts: the answer is a refusal, no fault."""
    payer = await books.payer("alice", 5 * USD)
    async with books.pool.acquire() as other, other.transaction():
        await other.execute("UPDATE accounts SET held_picos = balance_picos WHERE id = 'alice'")
        placing = asyncio.ensure_future(books.holds.place(books.request(payer, USD)))
        done, _ = await asyncio.wait({placing}, timeout=0.3)
        assert not done
    assert await placing == HoldRefused(Refusal.INSUFFICIENT, USD, 0)


async def test_a_locked_account_makes_only_its_own_requests_wait(books: Books) -> None:
    locked = await books.payer("alice", 100 * USD)
    others = [await books.payer(f"other{number}", 10 * USD) for number in range(20)]
    async with books.pool.acquire() as session, session.transaction():
        await session.execute("SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE")
        waiting = []
        for _ in range(5):
            # In one batch with requests of the locked account.
            waiting += [asyncio.ensure_future(books.holds.place(books.request(locked, USD)))]
            answers = await asyncio.gather(
                *(books.holds.place(books.request(payer, USD)) for payer in others)
            )
            assert all(isinstance(answer, HoldPlaced) for answer in answers)
        # On a slow machine some have given up waiting by now.
        assert all(answer.exception() for answer in waiting if answer.done())
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    await books.holds.close()
    placed = sum(isinstance(answer, HoldPlaced) for answer in ended)
    assert await books.funds("alice") == (100 * USD, placed * USD, 0)


async def test_several_locked_accounts_leave_the_others_their_connection(books: Books) -> None:
    owners = [await books.payer(f"locked{number}", 10 * USD) for number in range(10)]
    payer = await books.payer("alice", 10 * USD)
    async with books.pool.acquire() as session, session.transaction():
        await session.execute("SELECT 1 FROM accounts WHERE id LIKE 'locked%' FOR UPDATE")
        waiting = [
            asyncio.ensure_future(books.holds.place(books.request(owner, USD))) for owner in owners
        ]
        assert isinstance(await books.holds.place(books.request(payer, USD)), HoldPlaced)
        assert all(answer.exception() for answer in waiting if answer.done())
        for answer in waiting:
            answer.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_requests_of_a_locked_account_are_limited(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.holds.hold_store.LANE_LIMIT", 2)
    payer = await books.payer("alice", 10 * USD)
    other = await books.payer("bob", 10 * USD)
    async with books.pool.acquire() as session, session.transaction():
        await session.execute("SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE")
        waiting = [asyncio.ensure_future(books.holds.place(books.request(payer, USD)))]
        # When this is answered, the request before it has moved to its lane.
        assert isinstance(await books.holds.place(books.request(other, USD)), HoldPlaced)
        waiting += [
            asyncio.ensure_future(books.holds.place(books.request(payer, USD))) for _ in range(3)
        ]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        assert all(isinstance(answer.exception(), Overloaded) for answer in done)
        assert done
        assert isinstance(await books.holds.place(books.request(other, USD)), HoldPlaced)
        for answer in waiting:
            answer.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_caller_that_leaves_a_locked_account_leaves_no_hold(books: Books) -> None:
    payer = await books.payer("alice", 10 * USD)
    other = await books.payer("bob", 10 * USD)
    async with books.pool.acquire() as session, session.transaction():
        await session.execute("SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE")
        waiting = [
            asyncio.ensure_future(books.holds.place(books.request(payer, USD))) for _ in range(6)
        ]
        assert isinstance(await books.holds.place(books.request(other, USD)), HoldPlaced)
        for answer in waiting:
            answer.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await books.holds.close()
    assert await books.funds("alice") == (10 * USD, 0, 0)


async def test_a_flood_of_one_account_delays_another_by_two_commits_at_most(books: Books) -> None:
    flooder = await books.payer("flood", 100_000 * USD)
    payer = await books.payer("alice", 10 * USD)
    flood = [
        asyncio.ensure_future(books.holds.place(books.request(flooder, USD)))
        for _ in range(20 * BATCH_LIMIT)
    ]
    await asyncio.sleep(0)  # each call comes as far as the queue
    assert books.holds.waiting > 10 * BATCH_LIMIT
    before = sum(answer.done() for answer in flood)
    assert isinstance(await books.holds.place(books.request(payer, USD)), HoldPlaced)
    # One commit was under way and its own one followed; answers of a third may already be there.
    assert sum(answer.done() for answer in flood) - before <= 3 * BATCH_LIMIT
    assert all(isinstance(answer, HoldPlaced) for answer in await asyncio.gather(*flood))


async def test_the_expected_wait_grows_with_an_account_that_floods(books: Books) -> None:
    flooder = await books.payer("flood", 100_000 * USD)
    assert books.holds.expected_wait_s("flood") == 0.0
    await asyncio.gather(*(books.holds.place(books.request(flooder, USD)) for _ in range(9)))
    flood = [
        asyncio.ensure_future(books.holds.place(books.request(flooder, USD)))
        for _ in range(20 * BATCH_LIMIT)
    ]
    await asyncio.sleep(0)  # each call comes as far as the queue
    assert books.holds.waiting > 10 * BATCH_LIMIT
    for_flooder = books.holds.expected_wait_s("flood")
    assert for_flooder >= 10 * books.holds.commit_s > 0
    assert books.holds.expected_wait_s("alice") <= for_flooder / 3
    await asyncio.gather(*flood)
    assert books.holds.expected_wait_s("flood") == 0.0


async def test_an_overdrawn_account_gets_nothing_not_even_what_is_free(books: Books) -> None:
    payer = await books.payer("alice", 0)
    await books.pool.execute(
        "UPDATE accounts SET balance_picos = -1, overdrawn_picos = 1 WHERE id = 'alice'"
    )
    answer = await books.holds.place(books.request(payer, 0))
    assert answer == HoldRefused(Refusal.INSUFFICIENT, 0, -1)


async def test_a_request_without_a_limit_gets_what_is_affordable(books: Books) -> None:
    payer = await books.payer("alice", 1_050)
    answer = await books.holds.place(
        books.request(payer, 50, per_token_picos=3, min_tokens=16, max_tokens=10_000)
    )
    assert answer == HoldPlaced(answer.hold_id, 50 + 333 * 3, 333)  # type: ignore[union-attr]


async def test_a_named_limit_is_held_whole_or_not_at_all(books: Books) -> None:
    payer = await books.payer("alice", 1_050)
    answer = await books.holds.place(
        books.request(payer, 50, per_token_picos=3, min_tokens=334, max_tokens=334)
    )
    assert answer == HoldRefused(Refusal.INSUFFICIENT, 50 + 334 * 3, 1_050)


async def test_a_free_request_needs_no_credit(books: Books) -> None:
    payer = await books.payer("alice", 0)
    answer = await books.holds.place(books.request(payer, 0, max_tokens=100, min_tokens=16))
    assert isinstance(answer, HoldPlaced)
    assert answer.amount_picos == 0


async def test_amounts_beyond_a_ledger_entry_are_refused_not_wrapped(books: Books) -> None:
    payer = await books.payer("alice", USD)
    most = 2**63 - 1
    answer = await books.holds.place(
        books.request(payer, most, per_token_picos=most, min_tokens=10**7, max_tokens=10**7)
    )
    assert answer == HoldRefused(Refusal.INSUFFICIENT, most, USD)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE credentials SET revoked_at = now()", Refusal.CREDENTIAL_ENDED),
        ("UPDATE credentials SET expires_at = now()", Refusal.CREDENTIAL_ENDED),
        ("UPDATE accounts SET is_suspended = true", Refusal.ACCOUNT_SUSPENDED),
    ],
)
async def test_the_credential_is_judged_with_the_money(
    books: Books, change: str, reason: Refusal
) -> None:
    payer = await books.payer("alice", USD)
    await books.pool.execute(change)
    answer = await books.holds.place(books.request(payer, 1))
    assert isinstance(answer, HoldRefused)
    assert answer.reason is reason
    assert (await books.funds("alice"))[1] == 0


async def test_a_revocation_waits_for_holds_that_are_being_placed(books: Books) -> None:
    """A revocation that has answered must not be followed by a hold that was judged before it."""
    payer = await books.payer("alice", 5 * USD)
    keys = KeyService(KeyStore(books.pool), PEPPER)
    async with books.pool.acquire() as placing, placing.transaction():
        await placing.execute("SELECT 1 FROM accounts WHERE id = 'alice' FOR NO KEY UPDATE")
        ending = keys.revoke(Actor("operator:test"), "alice", payer.credential_id, Administrator())
        revoking = asyncio.ensure_future(ending)
        done, _ = await asyncio.wait({revoking}, timeout=0.3)
        assert not done
    await revoking
    answer = await books.holds.place(books.request(payer, USD))
    assert isinstance(answer, HoldRefused)
    assert answer.reason is Refusal.CREDENTIAL_ENDED


async def test_a_foreign_credential_gets_no_hold(books: Books) -> None:
    alice = await books.payer("alice", USD)
    mallory = await books.payer("mallory", 0)
    request = books.request(alice, 1)
    stolen = books.request(mallory, 1)
    mixed = type(request)(
        request.hold_id, "alice", stolen.credential_id, request.model_id, "x", request.estimate
    )
    answer = await books.holds.place(mixed)
    assert isinstance(answer, HoldRefused)
    assert answer.reason is Refusal.CREDENTIAL_ENDED


async def test_a_release_frees_once(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    assert await books.holds.release([hold_id]) == 1
    assert await books.holds.release([hold_id]) == 0
    assert await books.funds("alice") == (USD, 0, 0)
    assert await books.state(hold_id) == "released"


async def test_a_cancelled_call_leaves_no_open_hold(books: Books) -> None:
    payer = await books.payer("alice", 50 * USD)
    for delay_s in (0.0, 0.0003, 0.001, 0.003):
        calls = [
            asyncio.ensure_future(books.holds.place(books.request(payer, USD))) for _ in range(10)
        ]
        await asyncio.sleep(delay_s)
        for call in calls:
            call.cancel()
        finished = await asyncio.gather(*calls, return_exceptions=True)
        placed = [answer.hold_id for answer in finished if isinstance(answer, HoldPlaced)]
        await books.holds.close()
        if placed:
            await books.holds.release(placed)
        assert await books.funds("alice") == (50 * USD, 0, 0)


@pytest.mark.parametrize("is_answered", [False, True])
async def test_a_call_cancelled_as_its_hold_commits_leaves_none(
    books: Books, is_answered: bool
) -> None:
    payer = await books.payer("alice", 50 * USD)
    calls: list[asyncio.Future[HoldAnswer]] = []

    class Leaving:
        """Cancels the calls after the commit: before they are told of it, or just afterwards."""

        def reach(self, name: str) -> None:
            for call in calls if name == "authz.after_hold" else ():
                if is_answered:
                    asyncio.get_running_loop().call_soon(call.cancel)
                else:
                    call.cancel()

    holds = PostgresHolds(books.pool, LIFETIME, Leaving())
    calls += [asyncio.ensure_future(holds.place(books.request(payer, USD))) for _ in range(3)]
    await asyncio.gather(*calls, return_exceptions=True)
    await holds.close()
    assert all(call.cancelled() for call in calls)
    assert await books.funds("alice") == (50 * USD, 0, 0)


async def test_one_request_that_postgres_refuses_does_not_fail_the_others(books: Books) -> None:
    payer = await books.payer("alice", 10 * USD)
    requests = [books.request(payer, USD) for _ in range(6)]
    too_large = replace(requests[3].estimate, flat_cost_picos=2**63)
    requests[3] = replace(requests[3], estimate=too_large)
    answers = await asyncio.gather(
        *(books.holds.place(request) for request in requests), return_exceptions=True
    )
    assert [isinstance(answer, HoldPlaced) for answer in answers] == [
        number != 3 for number in range(6)
    ]
    assert (await books.funds("alice"))[1] == 5 * USD


@pytest.mark.lock_timeouts
async def test_a_locked_account_holds_up_others_for_a_moment_only(books: Books) -> None:
    locked = await books.payer("locked", USD)
    other = await books.payer("other", USD)
    async with books.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM accounts WHERE id = 'locked' FOR UPDATE")
        waiting = asyncio.ensure_future(books.holds.place(books.request(locked, 1)))
        await asyncio.sleep(0.05)
        answer = await asyncio.wait_for(books.holds.place(books.request(other, 1)), WAIT_S)
        assert isinstance(answer, HoldPlaced)
        with pytest.raises(StoreUnavailable):
            await waiting
    await books.holds.close()
    assert await books.funds("locked") == (USD, 0, 0)


async def test_an_absent_postgres_is_an_outage(books: Books) -> None:
    payer = await books.payer("alice", USD)
    pool = await open_pool("postgresql://nobody@/none?host=/nonexistent", most_connections=1)
    with pytest.raises(StoreUnavailable):
        await PostgresHolds(pool, LIFETIME).place(books.request(payer, 1))


async def test_the_database_itself_refuses_to_overspend(books: Books) -> None:
    await books.payer("alice", USD)
    for change in ("held_picos = 2000000000000", "balance_picos = -1", "held_picos = -1"):
        assert await refused_by_database(books.pool, f"UPDATE accounts SET {change}")


@pytest.mark.parametrize(
    "wrong",
    [
        "email = 'a@'",
        "name = ''",
        "markup_bps = -1",
        "markup_bps = 1000001",
        "requests_per_minute = 0",
        "tokens_per_minute = 0",
        "concurrent_requests = 0",
        "max_debt_picos = -1",
    ],
)
async def test_the_database_itself_refuses_terms_out_of_range(books: Books, wrong: str) -> None:
    await books.payer("alice", USD)
    with pytest.raises(asyncpg.CheckViolationError, match=wrong.split()[0]):
        await books.pool.execute(f"UPDATE accounts SET {wrong}")


@pytest.mark.parametrize("account_id", ["", "a b", "-a", "a" * 129])
async def test_the_database_itself_refuses_an_odd_account(books: Books, account_id: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=r"accounts\.id"):
        await books.payer(account_id, 0)


async def test_holds_update_accounts_without_touching_an_index(
    books: Books, database: Database, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    payer = await books.payer("alice", 1_000 * USD)
    pool = await open_pool(database.service_dsn, 1, KEYED_SESSION)
    holds = PostgresHolds(pool, LIFETIME)
    for _ in range(200):
        assert isinstance(await holds.place(books.request(payer, USD)), HoldPlaced)
    await holds.close()
    # The only session of that pool reports its counts before it answers.
    await pool.execute("SELECT pg_stat_force_next_flush()")
    await pool.close()
    row = await owner.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'accounts'"
    )
    assert row is not None
    assert row["n_tup_upd"] >= 200
    assert row["n_tup_hot_upd"] >= 0.95 * row["n_tup_upd"]


async def test_history_cannot_be_changed_by_the_service(books: Books) -> None:
    await books.payer("alice", USD)
    for table in PROTECTED:
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}"):
            assert await refused_by_database(books.pool, statement)
    assert await refused_by_database(books.pool, "UPDATE entry_rows SET amount_picos = 1")


async def test_a_hold_cannot_be_taken_away_by_the_service(books: Books) -> None:
    payer = await books.payer("alice", USD)
    await books.held(payer, USD)
    for statement in ("DELETE FROM holds", "TRUNCATE holds", "DELETE FROM ledger_chains"):
        assert await refused_by_database(books.pool, statement)
    assert (await books.verified()).is_ok


async def test_an_unbalanced_posting_is_refused_by_the_database(books: Books) -> None:
    entry = (
        "INSERT INTO entry_rows"
        " (posting_id, booked_at, line, ledger_account, account_id, amount_picos)"
        " VALUES (gen_random_uuid(), now(), 0, 'customer', 'alice', 1)"
    )
    with pytest.raises(asyncpg.CheckViolationError, match="does not sum to zero"):
        await books.pool.execute(entry)
