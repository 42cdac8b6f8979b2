"""The rights of a pass, drawn up from the principal that it stands for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from meter.errors import InvalidRequest, NotPermitted
from meter.identity.passes import PassOrder, draw_up
from meter.identity.principal import CredentialKind, Principal
from meter.scopes import DEFAULT_SCOPES, Scope

NOW = datetime(2030, 1, 1, 12, 0, 0, 700_000, tzinfo=UTC)
ROOT = Principal("cred", "acct", 0, scopes=frozenset(Scope))


def test_by_default_it_has_no_scope_over_keys_and_others() -> None:
    drawn = draw_up(ROOT, PassOrder(), "test", NOW)
    assert drawn.scopes == DEFAULT_SCOPES
    assert drawn.created_at == NOW.replace(microsecond=0)
    assert drawn.expires_at - drawn.created_at == timedelta(seconds=900)


def test_a_key_gives_any_scope_that_it_has_by_name() -> None:
    asked = frozenset({Scope.KEYS_WRITE, Scope.ADMIN_READ})
    assert draw_up(ROOT, PassOrder(scopes=asked), "test", NOW).scopes == asked


@pytest.mark.parametrize("kind", [CredentialKind.IDENTITY, CredentialKind.ACCOUNT])
def test_nothing_but_a_key_gives_more_than_the_usual(kind: CredentialKind) -> None:
    root = replace(ROOT, kind=kind)
    assert draw_up(root, PassOrder(), "test", NOW).scopes == DEFAULT_SCOPES
    with pytest.raises(NotPermitted):
        draw_up(root, PassOrder(scopes=frozenset({Scope.ADMIN_READ})), "test", NOW)


def test_it_ends_with_its_root_in_whole_seconds() -> None:
    ends_at = NOW + timedelta(seconds=10)
    drawn = draw_up(replace(ROOT, ends_at=ends_at), PassOrder(lifetime_s=60), "test", NOW)
    assert drawn.expires_at == ends_at.replace(microsecond=0)
    with pytest.raises(InvalidRequest):
        draw_up(replace(ROOT, ends_at=NOW), PassOrder(), "test", NOW)


@pytest.mark.parametrize(
    "root",
    [
        replace(ROOT, pass_id="p" * 22),
        replace(ROOT, is_suspended=True),
        replace(ROOT, scopes=frozenset({Scope.ADMIN_READ})),
        replace(ROOT, scopes=frozenset()),
    ],
)
def test_who_may_have_none(root: Principal) -> None:
    with pytest.raises(NotPermitted):
        draw_up(root, PassOrder(), "test", NOW)


def test_every_pass_has_another_id() -> None:
    assert len({draw_up(ROOT, PassOrder(), "test", NOW).id for _ in range(100)}) == 100
