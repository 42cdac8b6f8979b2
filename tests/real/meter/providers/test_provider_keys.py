"""Provider keys on a real Postgres: sealed, bound to whose they are, versioned."""

import pytest

from meter.errors import InvalidRequest, SealBroken
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.sealing import MasterKey, SecretText
from tests.books import Books

KEY = SecretText("sk-or-test-0123456789abcdef")


def keys_under(books: Books, master: bytes = b"m") -> PostgresProviderKeys:
    return PostgresProviderKeys(books.pool, MasterKey(master * 32))


async def test_a_key_comes_back_and_is_stored_sealed(books: Books) -> None:
    keys = keys_under(books)
    assert await keys.find_key("openrouter", SYSTEM_OWNER) is None
    assert await keys.set_key("openrouter", SYSTEM_OWNER, KEY) == 1
    found = await keys.find_key("openrouter", SYSTEM_OWNER)
    assert found is not None
    assert found.plain.reveal() == KEY.reveal()
    row = await books.pool.fetchrow("SELECT provider_keys::text FROM provider_keys")
    assert row is not None
    assert KEY.reveal() not in row[0]
    assert KEY.reveal().encode().hex() not in row[0]


async def test_the_same_key_again_keeps_its_version(books: Books) -> None:
    keys = keys_under(books)
    versions = [
        await keys.set_key("openrouter", SYSTEM_OWNER, SecretText(text))
        for text in ("sk-or-one", "sk-or-one", "sk-or-two", "sk-or-one")
    ]
    assert versions == [1, 1, 2, 3]


async def test_another_master_key_opens_nothing_and_replaces_only_on_purpose(books: Books) -> None:
    await keys_under(books).set_key("openrouter", SYSTEM_OWNER, KEY)
    other = keys_under(books, b"o")
    with pytest.raises(SealBroken) as refused:
        await other.find_key("openrouter", SYSTEM_OWNER)
    assert KEY.reveal() not in str(refused.value)
    with pytest.raises(SealBroken):
        await other.set_key("openrouter", SYSTEM_OWNER, KEY)
    assert await other.set_key("openrouter", SYSTEM_OWNER, KEY, may_replace_sealed=True) == 2


@pytest.mark.parametrize(
    "change",
    ["provider = 'openai'", "owner = 'mallory'", "key_version = 9", "sealed = sealed || 'x'"],
)
async def test_a_sealed_key_opens_only_where_it_was_sealed(books: Books, change: str) -> None:
    keys = keys_under(books)
    await keys.set_key("openrouter", SYSTEM_OWNER, KEY)
    await books.pool.execute(f"UPDATE provider_keys SET {change}")
    row = await books.pool.fetchrow("SELECT provider, owner FROM provider_keys")
    assert row is not None
    with pytest.raises(SealBroken):
        await keys.find_key(row["provider"], row["owner"])


@pytest.mark.parametrize("text", ["", "x" * 513, "with space", "line\nbreak", "ümlaut"])
async def test_unusable_keys_are_refused(books: Books, text: str) -> None:
    with pytest.raises(InvalidRequest):
        await keys_under(books).set_key("openrouter", SYSTEM_OWNER, SecretText(text))
