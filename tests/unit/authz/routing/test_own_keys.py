"""Own keys: cached for less than a second, and chosen as the account wants it."""

import asyncio
from dataclasses import replace

import pytest

from authz.decision import Deny, Reason
from authz.fresh_answers import MAX_ANSWER_AGE_S
from authz.routing.own_keys import (
    OwnKeyCache,
    OwnKeys,
    OwnKeyUse,
    choose_own_key,
)
from meter.clock import ManualClock
from meter.errors import StoreUnavailable
from meter.identity.principal import OwnKeyMode, OwnKeyTerms
from meter.providers.key_store import OwnKey
from meter.sealing import SecretText
from tests.fakes import EPOCH, principal

MAX_AGE_S = 0.5
KEY = OwnKey(SecretText("sk-own"), is_refused=False)
REFUSED = OwnKey(SecretText("sk-own"), is_refused=True)
SEALED = OwnKey(None, is_refused=False)


class Store:
    """The keys of one account; `gate` holds up an answer that was read before."""

    def __init__(self) -> None:
        self.keys = {"openai": KEY}
        self.asked = 0
        self.is_away = False
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()

    async def find_own_keys(self, account_id: str) -> dict[str, OwnKey]:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("away")
        found = dict(self.keys)
        self.reached.set()
        if self.gate is not None:
            await self.gate.wait()
        return found


def cache_of(store: Store, most: int = 10) -> tuple[OwnKeyCache, ManualClock]:
    clock = ManualClock(EPOCH)
    return OwnKeyCache(store.find_own_keys, clock, MAX_AGE_S, most), clock


async def test_a_deleted_key_is_gone_once_the_entry_is_old() -> None:
    store = Store()
    cache, clock = cache_of(store)
    assert "openai" in (await cache.find("ada")).by_provider
    del store.keys["openai"]
    assert "openai" in (await cache.find("ada")).by_provider
    clock.advance(MAX_AGE_S)
    assert (await cache.find("ada")).by_provider == {}
    assert store.asked == 2


async def test_one_look_up_answers_all_that_wait_for_it() -> None:
    store = Store()
    cache, _ = cache_of(store)
    await asyncio.gather(*(cache.find("ada") for _ in range(5)))
    assert store.asked == 1


async def test_an_answer_from_before_a_stop_is_asked_for_again() -> None:
    store = Store()
    store.gate = asyncio.Event()
    cache, clock = cache_of(store)
    asking = asyncio.ensure_future(cache.find("ada"))
    await store.reached.wait()
    # The process is stopped and continued, and the key is deleted meanwhile.
    del store.keys["openai"]
    clock.advance(MAX_ANSWER_AGE_S)
    store.gate.set()
    assert (await asking).by_provider == {}


async def test_the_cache_is_bounded_and_keeps_no_old_key() -> None:
    store = Store()
    cache, clock = cache_of(store, most=2)
    for account_id in ("ada", "bob", "cyd"):
        await cache.find(account_id)
    assert list(cache._found) == ["bob", "cyd"]
    clock.advance(MAX_AGE_S)
    await cache.find("dan")
    assert list(cache._found) == ["dan"]


async def test_an_outage_is_no_answer_and_is_not_kept() -> None:
    store = Store()
    store.is_away = True
    cache, _ = cache_of(store)
    with pytest.raises(StoreUnavailable):
        await cache.find("ada")
    store.is_away = False
    assert "openai" in (await cache.find("ada")).by_provider


PREFER, ONLY = OwnKeyMode.PREFER, OwnKeyMode.ONLY
BOTH = ["openai", "openrouter"]


@pytest.mark.parametrize(
    ("mode", "may_fall_back", "stored", "expected"),
    [
        (PREFER, False, {"openai": KEY}, "openai"),
        (PREFER, False, {"openrouter": KEY}, "openrouter"),
        (PREFER, False, {"openrouter": KEY, "openai": KEY}, "openai"),
        (PREFER, False, {"google": KEY}, None),
        (ONLY, False, {"google": KEY}, Reason.NO_OWN_KEY),
        # A refused key is tried again, unless credit may pay meanwhile.
        (PREFER, False, {"openai": REFUSED}, "openai"),
        (PREFER, True, {"openai": REFUSED}, None),
        (PREFER, True, {"openai": REFUSED, "openrouter": KEY}, "openrouter"),
        (ONLY, True, {"openai": REFUSED}, "openai"),
        # Credit is not spent because we cannot open a key.
        (PREFER, False, {"openai": SEALED}, Reason.OWN_KEY_REJECTED),
        (PREFER, True, {"openai": SEALED}, None),
        (ONLY, True, {"openai": SEALED}, Reason.OWN_KEY_REJECTED),
    ],
)
def test_the_account_decides_about_its_keys_and_its_credit(
    mode: OwnKeyMode,
    may_fall_back: bool,
    stored: dict[str, OwnKey],
    expected: str | Reason | None,
) -> None:
    terms = OwnKeyTerms(mode, may_fall_back)
    who = replace(principal(), has_own_keys=True, own_key_terms=terms)
    chosen = choose_own_key(who, OwnKeys(stored, 0.0), BOTH)
    if isinstance(chosen, Deny):
        assert chosen.reason is expected
    else:
        assert (None if chosen is None else chosen.provider) == expected


def test_no_representation_shows_a_key() -> None:
    use = OwnKeyUse("openai", SecretText("sk-own-secret"))
    assert "sk-own-secret" not in repr((use, KEY, OwnKeys({"openai": KEY}, 0.0)))


def test_who_has_no_key_or_wants_none_uses_none() -> None:
    never = OwnKeyTerms(OwnKeyMode.NEVER)
    assert not principal().uses_own_keys
    assert replace(principal(), has_own_keys=True).uses_own_keys
    assert not replace(principal(), has_own_keys=True, own_key_terms=never).uses_own_keys
    assert replace(principal(), own_key_terms=OwnKeyTerms(fee_bps=500)).own_key_markup_bps == -9_500
