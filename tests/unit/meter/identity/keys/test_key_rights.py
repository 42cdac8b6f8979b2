"""The rights of users over keys: never more than they have themselves."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meter.errors import NotPermitted
from meter.identity.keys.key_rights import (
    KeyAct,
    KeyChange,
    KeyRights,
    SelfService,
    are_addresses_within,
    are_models_within,
    permit,
)
from meter.identity.keys.key_terms import KeyTerms
from meter.identity.principal import Budgets, Credential, CredentialKind
from meter.limits.limits import Rates
from meter.scopes import DEFAULT_SCOPES, Scope

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SCOPES = DEFAULT_SCOPES | {Scope.KEYS_WRITE}
TERMS = KeyTerms("new", frozenset({Scope.INFERENCE}))


def key(key_id: str = "caller", **terms: Any) -> Credential:
    """A key without restrictions, but for these."""
    plain = Credential(
        id=key_id,
        kind=CredentialKind.KEY,
        account_id="ada",
        name="key",
        prefix=f"tk-{key_id}",
        scopes=SCOPES,
        allowed_models=None,
        allowed_addresses=None,
        rates=Rates(),
        budgets=Budgets(),
        tags={},
        expires_at=None,
        suspended_at=None,
        revoked_at=None,
        created_at=NOW,
        created_by="operator:operator",
    )
    return replace(plain, **terms)


def rights(caller: Credential | None, **terms: Any) -> KeyRights:
    """A plan that allows what plans allow by default."""
    usual = KeyRights(NOW, caller, True, False, 10, 1, SCOPES, Rates())
    return replace(usual, **terms)


def refusal(change: KeyChange, held: KeyRights, pass_id: str | None = None) -> str | None:
    """Return why the caller may not; None when it may."""
    scopes = held.caller.scopes if held.caller else SCOPES
    try:
        permit(change, held, SelfService("caller", scopes, pass_id))
    except NotPermitted as error:
        return str(error)
    return None


def created(**terms: Any) -> KeyChange:
    """A new key on these terms."""
    return KeyChange(KeyAct.CREATE, None, replace(TERMS, **terms))


@pytest.mark.parametrize(
    ("wanted", "allowed", "is_within"),
    [
        (None, None, True),
        (None, ("a/b",), False),
        (("a/b",), None, True),
        (("a/b",), ("a/*",), True),
        (("a/*",), ("a/*",), True),
        (("a/b*",), ("a/*",), False),
        (("*",), ("a/*",), False),
        (("a/*", "c/d"), ("a/*",), False),
        (("[a]/b",), ("a/b",), False),
        (("a/?",), ("a/b",), False),
        (("a/b",), ("A/B",), False),
        ((), ("a/b",), True),
    ],
)
def test_models_within(
    wanted: tuple[str, ...] | None, allowed: tuple[str, ...] | None, is_within: bool
) -> None:
    assert are_models_within(wanted, allowed) is is_within


@pytest.mark.parametrize(
    ("wanted", "allowed", "is_within"),
    [
        (None, ("10.0.0.0/8",), False),
        (("10.1.0.0/16",), ("10.0.0.0/8",), True),
        (("10.0.0.0/8",), ("10.1.0.0/16",), False),
        (("10.1.0.0/16", "::/0"), ("10.0.0.0/8",), False),
        (("0.0.0.0/0",), ("::/0",), False),
        (("2001:db8:1::/48",), ("10.0.0.0/8", "2001:db8::/32"), True),
    ],
)
def test_addresses_within(
    wanted: tuple[str, ...] | None, allowed: tuple[str, ...] | None, is_within: bool
) -> None:
    assert are_addresses_within(wanted, allowed) is is_within


def test_an_unrestricted_caller_makes_keys() -> None:
    for change in (
        created(),
        created(allowed_models=("a/b",)),
        created(budgets=Budgets(day_picos=5)),
        created(rates=Rates(requests_per_minute=10**6)),
    ):
        assert refusal(change, rights(key())) is None


LATER, EARLIER = NOW + timedelta(days=9), NOW + timedelta(days=1)


@pytest.mark.parametrize(
    ("caller", "terms", "word"),
    [
        ({}, {"scopes": frozenset({Scope.ADMIN_READ})}, "admin:read"),
        ({"scopes": frozenset({Scope.KEYS_WRITE})}, {}, "inference"),
        ({"allowed_models": ("a/*",)}, {}, "models"),
        ({"allowed_models": ("a/*",)}, {"allowed_models": ("b/c",)}, "models"),
        ({"allowed_addresses": ("10.0.0.0/8",)}, {}, "addresses"),
        ({"expires_at": EARLIER}, {}, "outlive"),
        ({"expires_at": EARLIER}, {"expires_at": LATER}, "outlive"),
        ({"budgets": Budgets(total_picos=9)}, {"budgets": Budgets(total_picos=1)}, "budget"),
        ({"budgets": Budgets(day_picos=0)}, {}, "budget"),
        ({"rates": Rates(concurrent_requests=1)}, {}, "limits"),
    ],
)
def test_restrictions_of_the_caller_bind_its_keys(
    caller: dict[str, Any], terms: dict[str, Any], word: str
) -> None:
    assert word in str(refusal(created(**terms), rights(key(**caller))))


@pytest.mark.parametrize(
    ("terms", "word"),
    [
        ({"caller": None}, "ended"),
        ({"may_manage_keys": False}, "administrator"),
        ({"is_suspended": True}, "suspended"),
        ({"live_keys": 10}, "10 keys"),
        ({"keys_of_a_day": 1_000}, "1,000 keys in 24 hours"),
        ({"changes_of_a_day": 10_000}, "10,000 times a day"),
        ({"scopes": frozenset({Scope.USAGE_READ})}, "inference"),
    ],
)
def test_what_an_administrator_allows_binds_users(terms: dict[str, Any], word: str) -> None:
    assert word in str(refusal(created(), replace(rights(key()), **terms)))


def test_no_key_passes_the_limits_of_its_plan() -> None:
    plan = rights(key(), key_rates=Rates(requests_per_minute=60))
    assert refusal(created(rates=Rates(requests_per_minute=60)), plan) is None
    assert refusal(created(rates=Rates(tokens_per_minute=9)), plan) is None
    assert "plan" in str(refusal(created(rates=Rates(requests_per_minute=61)), plan))


def test_a_pass_only_ends_keys() -> None:
    other = key("other")
    for act in KeyAct:
        before = None if act is KeyAct.CREATE else other
        is_refused = refusal(KeyChange(act, before, TERMS), rights(key()), "jti") is not None
        is_ending = act in (KeyAct.SUSPEND, KeyAct.REVOKE, KeyAct.END_PREVIOUS_SECRET)
        assert is_refused is not is_ending, act
    # Not even the key that it was made with: its secret would be more than the pass.
    assert refusal(KeyChange(KeyAct.ROTATE, key(), KeyTerms.of(key())), rights(key()), "jti")


def test_whoever_could_not_have_made_a_key_may_not_get_its_secret() -> None:
    caller, other = key(allowed_models=("a/*",)), key("other")
    for act in (KeyAct.ROTATE, KeyAct.RESUME):
        assert refusal(KeyChange(act, other, KeyTerms.of(other)), rights(caller)) is not None
        narrow = replace(other, allowed_models=("a/b",))
        assert refusal(KeyChange(act, narrow, KeyTerms.of(narrow)), rights(caller)) is None
    own = KeyChange(KeyAct.ROTATE, caller, KeyTerms.of(caller))
    assert refusal(own, rights(caller)) is None


@pytest.mark.parametrize(
    ("had", "gets", "may"),
    [
        ({}, {"name": "x"}, True),
        ({}, {"expires_at": LATER}, True),
        ({"expires_at": LATER}, {"expires_at": EARLIER}, True),
        ({"expires_at": EARLIER}, {"expires_at": LATER}, False),
        ({"expires_at": EARLIER}, {"expires_at": None}, False),
        ({"budgets": Budgets(day_picos=5)}, {"budgets": Budgets(day_picos=4)}, True),
        ({"budgets": Budgets(day_picos=5)}, {"budgets": Budgets(day_picos=6)}, False),
        ({"budgets": Budgets(day_picos=5)}, {"budgets": Budgets()}, False),
        (
            {"budgets": Budgets(day_picos=5)},
            {"budgets": Budgets(day_picos=5, week_picos=9)},
            True,
        ),
        ({"rates": Rates(5)}, {"rates": Rates(4)}, True),
        ({"rates": Rates(5)}, {"rates": Rates()}, False),
        # The plan's 3 apply once it has none of its own; without that it had the plan's.
        ({"rates": Rates(5, 9)}, {"rates": Rates(None, 9)}, False),
        ({"allowed_models": ("a/*",)}, {"allowed_models": ("a/b",)}, True),
        ({"allowed_models": ("a/b",)}, {"allowed_models": ("a/*",)}, False),
        ({}, {"scopes": SCOPES | {Scope.ADMIN_WRITE}}, False),
        ({}, {"scopes": frozenset({Scope.INFERENCE})}, True),
    ],
)
def test_a_key_narrows_itself_and_never_widens(
    had: dict[str, Any], gets: dict[str, Any], may: bool
) -> None:
    own = key(**had)
    change = KeyChange(KeyAct.CHANGE, own, replace(KeyTerms.of(own), **gets))
    assert (refusal(change, rights(own)) is None) is may


def test_the_plans_limits_stand_in_for_a_keys_own() -> None:
    own = key(rates=Rates(5))
    change = KeyChange(KeyAct.CHANGE, own, replace(KeyTerms.of(own), rates=Rates()))
    assert refusal(change, rights(own, key_rates=Rates(3))) is None
    bare = key()
    change = KeyChange(KeyAct.CHANGE, bare, replace(KeyTerms.of(bare), rates=Rates(4)))
    assert refusal(change, rights(bare, key_rates=Rates(3))) is not None


def test_an_expired_key_comes_back_only_where_there_is_room() -> None:
    old = key("old", expires_at=NOW - timedelta(days=1))
    change = KeyChange(KeyAct.CHANGE, old, replace(KeyTerms.of(old), expires_at=LATER))
    assert refusal(change, rights(key(), live_keys=9)) is None
    assert "10 keys" in str(refusal(change, rights(key(), live_keys=10)))


def test_an_administrators_suspension_stands() -> None:
    other = key("other", suspended_at=NOW)
    for by_administrator in (True, False):
        change = KeyChange(KeyAct.RESUME, other, KeyTerms.of(other), by_administrator)
        assert (refusal(change, rights(key())) is not None) is by_administrator


def test_where_keys_are_not_theirs_to_manage_users_end_only_the_one_they_have() -> None:
    kept = rights(key(), may_manage_keys=False)
    revoke = KeyChange(KeyAct.REVOKE, key(), TERMS)
    assert refusal(revoke, kept) is None
    assert refusal(replace(revoke, before=key("other")), kept) is not None
    assert refusal(KeyChange(KeyAct.ROTATE, key(), TERMS), kept) is not None
