"""API keys: form, checksum, digest, and that they do not show themselves."""

import hmac
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.identity.keys.key_text import (
    _BASE62,
    CHECKSUM_CHARS,
    KEY_CHARS,
    Pepper,
    _checksum,
    mint,
    parse,
)

PEPPER = Pepper.from_master_key(b"k" * 32)


def test_a_minted_key_parses() -> None:
    minted = mint()
    presented = parse(minted.plain.reveal())
    assert presented is not None
    assert presented.credential_id == minted.credential_id
    assert len(minted.plain.reveal()) == KEY_CHARS
    assert minted.plain.reveal().startswith(minted.prefix)


def test_keys_differ() -> None:
    assert len({mint().plain.reveal() for _ in range(100)}) == 100


@given(st.integers(0, KEY_CHARS - 1), st.sampled_from(string.printable))
def test_one_changed_character_is_noticed(position: int, char: str) -> None:
    key = mint().plain.reveal()
    changed = key[:position] + char + key[position + 1 :]
    assert (parse(changed) is None) == (changed != key)


@given(st.text(max_size=100))
def test_stray_text_is_no_key(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("text", ["", "tk-", "sk-" + "a" * 66, "tk-" + "é" * 66, "t" * KEY_CHARS])
def test_wrong_forms_are_no_keys(text: str) -> None:
    assert parse(text) is None


def test_secrets_do_not_show_themselves() -> None:
    minted = mint()
    secret = minted.plain.reveal()
    for shown in (repr(minted), str(minted), f"{minted.plain}", repr(parse(secret)), repr(PEPPER)):
        assert secret not in shown


def test_digests_depend_on_the_pepper() -> None:
    other = Pepper.from_master_key(b"o" * 32)
    assert PEPPER.digest("x") == PEPPER.digest("x")
    assert PEPPER.digest("x") != other.digest("x")
    assert len(PEPPER.digest("x")) == 32


def test_a_pepper_is_derived_from_the_master_key_and_is_not_it() -> None:
    assert Pepper(b"k" * 32).digest("x") != Pepper.from_master_key(b"k" * 32).digest("x")
    assert repr(PEPPER) == "Pepper('***')"


@given(key=st.binary(min_size=1, max_size=100), text=st.text(max_size=300))
def test_the_digest_is_an_hmac(key: bytes, text: str) -> None:
    expected = hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256")
    assert Pepper(key).digest(text) == expected
    # Each begins from the same prepared state.
    assert Pepper(key).digest(text) == expected


@given(body=st.text(st.characters(codec="ascii"), max_size=80))
def test_the_checksum_is_the_number_in_six_digits(body: str) -> None:
    number = 0
    for digit in _checksum(body):
        number = number * 62 + _BASE62.index(digit)
    assert number == zlib.crc32(body.encode())
    assert len(_checksum(body)) == CHECKSUM_CHARS
