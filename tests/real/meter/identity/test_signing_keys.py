"""Signing keys: one signs at a time, published before and after, sealed, removed at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meter.audit.events import Actor
from meter.clock import ManualClock
from meter.errors import NotFound, SealBroken
from meter.identity.pass_store import PassStore
from meter.identity.passes import MAX_PASS_LIFETIME_S
from meter.identity.signing_key_store import (
    PUBLISH_AHEAD,
    STAYS_PUBLISHED,
    PublishedKeys,
    SigningKeys,
)
from meter.identity.signing_rotation import SigningRotation
from meter.sealing import MasterKey, SealContext, SigningKeyContext
from tests.books import Books
from tests.meter_api import ADMIN, MeterApi
from tests.patience import until

MASTER_KEY = MasterKey(b"m" * 32)
WHO = Actor("test")
MONTH = timedelta(days=30)
AHEAD_S = PUBLISH_AHEAD.total_seconds()
TOKEN = "/api/v1/auth/token"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2030, 1, 1, tzinfo=UTC))


def keys_of(books: Books, clock: ManualClock, algorithm: Any = "EdDSA") -> SigningKeys:
    return SigningKeys(books.pool, MASTER_KEY, clock, algorithm)


async def published(books: Books, clock: ManualClock) -> list[str]:
    return [key.kid for key in await PublishedKeys(books.pool, clock).list_keys()]


async def test_many_meters_make_one_first_key(books: Books, clock: ManualClock) -> None:
    meters = [keys_of(books, clock) for _ in range(6)]
    made = await asyncio.gather(*(meter.ensure(MONTH, WHO) for meter in meters))
    assert sum(key is not None for key in made) == 1
    signing = await asyncio.gather(*(meter.current() for meter in meters))
    assert {key.kid for key, _ in signing} == set(await published(books, clock))


async def test_whoever_signs_first_makes_the_key(books: Books, clock: ManualClock) -> None:
    meters = [keys_of(books, clock) for _ in range(4)]
    signing = await asyncio.gather(*(meter.current() for meter in meters))
    assert len({key.kid for key, _ in signing}) == 1


async def test_a_rotated_key_is_published_before_it_signs(books: Books, clock: ManualClock) -> None:
    keys = keys_of(books, clock)
    first = await keys.ensure(MONTH, WHO)
    assert first is not None
    clock.advance(MONTH.total_seconds() - 1)
    assert await keys.ensure(MONTH, WHO) is None
    clock.advance(1)
    second = await keys.ensure(MONTH, WHO)
    assert second is not None
    assert await keys.ensure(MONTH, WHO) is None
    assert await published(books, clock) == [second.kid, first.kid]
    clock.advance(AHEAD_S - 1)
    assert (await keys.current())[0].kid == first.kid
    clock.advance(1)
    assert (await keys.current())[0].kid == second.kid


async def test_an_old_key_stays_until_its_last_pass_is_over(
    books: Books, clock: ManualClock
) -> None:
    keys = keys_of(books, clock)
    first = await keys.ensure(MONTH, WHO)
    clock.advance(1)
    second = await keys.rotate(immediately=False, actor=WHO)
    assert first is not None
    # The last pass of the first key is signed a moment before the second takes over.
    clock.advance(AHEAD_S + MAX_PASS_LIFETIME_S + 30)
    assert await published(books, clock) == [second.kid, first.kid]
    assert await keys.forget_ended() == 0
    clock.advance(STAYS_PUBLISHED.total_seconds() - MAX_PASS_LIFETIME_S - 30)
    assert await published(books, clock) == [second.kid]
    assert await keys.forget_ended() == 1
    assert await keys.forget_ended() == 0


async def test_a_key_that_has_not_signed_gives_way_to_the_next(
    books: Books, clock: ManualClock
) -> None:
    keys = keys_of(books, clock)
    await keys.ensure(MONTH, WHO)
    clock.advance(1)
    await keys.rotate(immediately=False, actor=WHO)
    clock.advance(1)
    third = await keys.rotate(immediately=True, actor=WHO)
    assert (await keys.current())[0].kid == third.kid
    clock.advance(AHEAD_S * 2)
    assert (await keys.current())[0].kid == third.kid
    assert len(await published(books, clock)) == 2


async def test_another_algorithm_is_taken_up_by_rotation(books: Books, clock: ManualClock) -> None:
    await keys_of(books, clock).ensure(MONTH, WHO)
    rsa = keys_of(books, clock, "RS256")
    made = await rsa.ensure(MONTH, WHO)
    assert made is not None
    assert (made.algorithm, made.public_jwk["kty"]) == ("RS256", "RSA")
    assert await rsa.ensure(MONTH, WHO) is None


async def test_a_removed_key_is_gone_and_another_signs(books: Books, clock: ManualClock) -> None:
    keys = keys_of(books, clock)
    first = await keys.ensure(MONTH, WHO)
    clock.advance(1)
    second = await keys.rotate(immediately=True, actor=WHO)
    assert first is not None
    await keys.remove(second.kid, WHO)
    third, _ = await keys.current()
    # The retired one signs no more.
    assert third.kid not in {first.kid, second.kid}
    assert set(await published(books, clock)) == {first.kid, third.kid}
    with pytest.raises(NotFound):
        await keys.remove(second.kid, WHO)


async def test_the_only_key_may_be_removed_while_the_next_waits(
    books: Books, clock: ManualClock
) -> None:
    keys = keys_of(books, clock)
    first = await keys.ensure(MONTH, WHO)
    clock.advance(1)
    await keys.rotate(immediately=False, actor=WHO)
    assert first is not None
    await keys.remove(first.kid, WHO)
    signing, _ = await keys.current()
    assert await published(books, clock) == [signing.kid]
    clock.advance(STAYS_PUBLISHED.total_seconds() * 2)
    assert await published(books, clock) == [signing.kid]


async def test_the_task_rotates_and_forgets(books: Books, clock: ManualClock) -> None:
    keys = keys_of(books, clock)
    task = SigningRotation(keys, PassStore(books.pool), MONTH, clock)
    await task.once()
    clock.advance(MONTH.total_seconds())
    await task.once()
    assert len(await published(books, clock)) == 2
    clock.advance(MONTH.total_seconds() / 2)
    await task.once()
    assert await books.pool.fetchval("SELECT count(*) FROM signing_keys") == 1


async def test_sealed_keys_open_in_their_own_place_only(books: Books, clock: ManualClock) -> None:
    keys = keys_of(books, clock)
    signing, private = await keys.current()
    assert "PRIVATE KEY" in private.reveal()
    assert "PRIVATE KEY" not in repr((signing, private, keys))
    assert b"PRIVATE" not in signing.sealed
    for context in (
        SigningKeyContext("system", "another", 1),
        SigningKeyContext("other", signing.kid, 1),
        SigningKeyContext("system", signing.kid, 2),
        SealContext("system", signing.kid, 1),
    ):
        with pytest.raises(SealBroken):
            MASTER_KEY.open(signing.sealed, context)
    clock.advance(1)
    await keys.rotate(immediately=True, actor=WHO)
    await books.pool.execute(
        "UPDATE signing_keys SET sealed = $1 WHERE id <> $2", signing.sealed, signing.kid
    )
    with pytest.raises(SealBroken):
        await keys.current()


async def test_administrators_rotate_and_remove(api: MeterApi) -> None:
    await api.user("ada")
    key = (await api.key("ada"))["key"]
    made = (await api.as_key(key, TOKEN, "POST", {})).json()["access_token"]
    (first,) = (await api.operator.get(f"{ADMIN}/signing-keys")).json()["data"]
    assert first["is_signing"]
    answer = await api.operator.post(f"{ADMIN}/signing-keys/rotate", json={"immediately": True})
    assert (answer.status_code, answer.json()["is_signing"]) == (201, True)
    # Both are good: the verifier asks for a key that it does not know.
    assert (await api.as_key(made, "/api/v1/credits")).status_code == 200
    second = (await api.as_key(key, TOKEN, "POST", {})).json()["access_token"]
    assert (await api.as_key(second, "/api/v1/credits")).status_code == 200
    assert (await api.operator.delete(f"{ADMIN}/signing-keys/{first['kid']}")).status_code == 204

    async def is_refused() -> bool:
        return (await api.as_key(made, "/api/v1/credits")).status_code == 401

    await until(is_refused, "the verifier knows that the key is gone")
    assert (await api.as_key(second, "/api/v1/credits")).status_code == 200
    assert (await api.operator.delete(f"{ADMIN}/signing-keys/{first['kid']}")).status_code == 404
    actions = await api.pool.fetch("SELECT action, actor FROM audit_log WHERE action LIKE 'sign%'")
    assert [tuple(row) for row in actions] == [
        ("signing_key.made", "system"),
        ("signing_key.made", "operator:operator"),
        ("signing_key.removed", "operator:operator"),
    ]


async def test_only_administrators_see_signing_keys(api: MeterApi) -> None:
    await api.user("ada")
    key = (await api.key("ada"))["key"]
    assert (await api.as_key(key, f"{ADMIN}/signing-keys")).status_code == 403
    assert (await api.as_key(key, f"{ADMIN}/signing-keys/rotate", "POST")).status_code == 403
