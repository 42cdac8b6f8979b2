"""Issuers and identities: trusted on terms, one account for each subject, never two issuers."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meter.identity.principal import ByCertificate, ByIdentity
from meter.identity.principal_store import PostgresPrincipals
from meter.identity.provisioning import account_id_for, stored_subject
from meter.jwts.verified import VerifiedIdentity
from meter.scopes import Scope
from tests.books import Books
from tests.jwts import FakeDocuments, signer
from tests.meter_api import ADMIN, MeterApi, meter_api

URL = "https://id.example.com/realms/main"
TERMS = {"audiences": ["tollkeeper"], "may_create_accounts": True}
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def seen(issuer_id: str = "id", subject: str = "alice", **changes: Any) -> VerifiedIdentity:
    identity = VerifiedIdentity(
        issuer_id=issuer_id,
        subject=subject,
        account_subject=subject,
        scopes=frozenset({Scope.INFERENCE}),
        plan_id=None,
        may_create=True,
        name="Alice",
        ends_at=NOW + timedelta(hours=1),
        issued_at=NOW,
    )
    return replace(identity, **changes)


async def believe(api: MeterApi, issuer_id: str, url: str = URL, **changes: Any) -> dict[str, Any]:
    body = {"url": url, "terms": TERMS, **changes}
    answer = await api.operator.put(f"{ADMIN}/issuers/{issuer_id}", json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def link(api: MeterApi, user: str, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = await api.operator.put(f"{ADMIN}/users/{user}/identities", json=body)
    return answer.status_code, answer.json()


async def plan_of(books: Books, account_id: str) -> str:
    return str(await books.pool.fetchval("SELECT plan_id FROM accounts WHERE id = $1", account_id))


async def test_issuers_are_put_listed_disabled_and_removed(api: MeterApi) -> None:
    said = await believe(api, "id")
    assert (said["is_enabled"], said["identities"], said["keys_age_s"]) == (True, 0, None)
    disabled = await api.operator.post(f"{ADMIN}/issuers/id/disable")
    assert disabled.json()["is_enabled"] is False
    # New terms do not enable what somebody disabled.
    assert (await believe(api, "id", terms={"audiences": ["b"]}))["is_enabled"] is False
    assert (await api.operator.post(f"{ADMIN}/issuers/id/enable")).json()["is_enabled"]
    (listed,) = (await api.operator.get(f"{ADMIN}/issuers")).json()["data"]
    assert listed["terms"]["audiences"] == ["b"]
    assert (await api.operator.delete(f"{ADMIN}/issuers/id")).status_code == 204
    assert (await api.operator.get(f"{ADMIN}/issuers/id")).status_code == 404
    actions = await api.pool.fetch("SELECT action FROM audit_log ORDER BY id")
    assert [row["action"] for row in actions] == [
        "issuer.put",
        "issuer.disabled",
        "issuer.put",
        "issuer.enabled",
        "issuer.removed",
    ]


async def test_what_would_believe_too_much_is_refused(api: MeterApi) -> None:
    for issuer_id, status, body in (
        ("id", 422, {"url": "http://id.example.com", "terms": TERMS}),
        ("id", 422, {"url": "https://u:p@id.example.com", "terms": TERMS}),
        ("id", 422, {"url": URL, "terms": {}}),
        ("id", 422, {"url": URL, "terms": {**TERMS, "audience": "a"}}),
        ("id", 422, {"url": URL, "terms": {**TERMS, "default_scopes": ["admin:read"]}}),
        ("ID", 422, {"url": URL, "terms": TERMS}),
    ):
        answer = await api.operator.put(f"{ADMIN}/issuers/{issuer_id}", json=body)
        assert answer.status_code == status, (body, answer.text)
    await believe(api, "id")
    for issuer_id, url in (("id", URL + "2"), ("id2", URL)):
        body = {"url": url, "terms": TERMS}
        answer = await api.operator.put(f"{ADMIN}/issuers/{issuer_id}", json=body)
        assert answer.status_code == 409, answer.text


async def test_a_check_says_what_is_wrong(books: Books, api: MeterApi) -> None:
    documents = FakeDocuments()
    async with meter_api(books.pool, documents=documents) as other:
        await believe(other, "id", terms={**TERMS, "algorithms": "ES"})

        async def check() -> tuple[bool, str]:
            said = (await other.operator.post(f"{ADMIN}/issuers/id/check")).json()
            return said["is_good"], said["findings"][-1]["said"]

        assert await check() == (
            False,
            f"'{URL}/.well-known/openid-configuration': it cannot be connected to",
        )
        found = {"issuer": URL + "/", "jwks_uri": "https://id.example.com/keys"}
        documents.documents[f"{URL}/.well-known/openid-configuration"] = found
        assert "character by character" in (await check())[1]
        found["issuer"] = URL
        documents.documents["https://id.example.com/keys"] = {"keys": [signer("EdDSA").jwk]}
        assert "none of them can check ES" in (await check())[1]
        documents.documents["https://id.example.com/keys"] = {"keys": [signer("ES256").jwk]}
        assert await check() == (True, "1 of 1 keys can check ES signatures")


async def test_twenty_first_sights_at_once_make_one_account(books: Books, api: MeterApi) -> None:
    await believe(api, "id")
    principals = PostgresPrincipals(books.pool)
    found = await asyncio.gather(*(principals.find(ByIdentity(seen())) for _ in range(20)))
    assert len({one and (one.account_id, one.credential_id) for one in found}) == 1
    account_id = account_id_for("id", "alice")
    assert found[0] is not None
    assert found[0].account_id == account_id
    user = (await api.operator.get(f"{ADMIN}/users/{account_id}")).json()
    assert (user["email"], user["name"]) == (f"{account_id}@id.invalid", "Alice")
    (line,) = await books.pool.fetch("SELECT * FROM audit_log WHERE action LIKE 'identity.%'")
    assert line["actor"] == f"identity:{found[0].credential_id}"
    answer = await api.operator.delete(f"{ADMIN}/issuers/id")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert await principals.find(ByIdentity(seen(subject="bob", may_create=False))) is None
    await api.operator.post(f"{ADMIN}/issuers/id/disable")
    assert await principals.find(ByIdentity(seen())) is None
    assert await principals.find(ByIdentity(seen(subject="bob"))) is None


async def test_two_issuers_never_meet_in_one_account(books: Books, api: MeterApi) -> None:
    await believe(api, "id")
    await believe(api, "id2", URL + "2")
    principals = PostgresPrincipals(books.pool)
    first = await principals.find(ByIdentity(seen()))
    second = await principals.find(ByIdentity(seen("id2")))
    assert first is not None
    assert second is not None
    assert first.account_id != second.account_id
    # Nor does whoever takes the id of an account before its subject comes.
    taken = account_id_for("id", "carol")
    await api.user(taken)
    assert await principals.find(ByIdentity(seen(subject="carol"))) is None
    # Nor by an administrator's hand.
    status, said = await link(api, first.account_id, issuer="id2", subject="dave")
    assert (status, said["code"]) == (409, "conflict")
    await api.user("eve")
    assert (await link(api, "eve", issuer="id", subject="alice"))[0] == 409


def test_parts_with_their_lengths_never_read_alike() -> None:
    ids = {account_id_for(*pair) for pair in (("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"))}
    assert len(ids) == 4
    assert all(len(one) == 25 for one in ids)


async def test_somebody_who_moves_on_does_not_act_for_the_account_they_left(
    books: Books, api: MeterApi
) -> None:
    await believe(api, "id")
    principals = PostgresPrincipals(books.pool)
    before = await principals.find(ByIdentity(seen(account_subject="org-1")))
    colleague = await principals.find(ByIdentity(seen(subject="bob", account_subject="org-1")))
    after = await principals.find(ByIdentity(seen(account_subject="org-2")))
    assert before is not None
    assert colleague is not None
    assert after is not None
    assert before.account_id == colleague.account_id != after.account_id
    assert before.credential_id != colleague.credential_id
    (row,) = (await api.operator.get(f"{ADMIN}/users/{after.account_id}/identities")).json()["data"]
    assert (row["subject"], row["account_subject"]) == ("alice", "org-2")
    for forged in (stored_subject("alice", "org-1"), "", "x" * 513, "alice\0"):
        assert await principals.find(ByIdentity(seen(subject=forged))) is None


async def test_the_youngest_jwt_says_which_plan(books: Books, api: MeterApi) -> None:
    for plan in ("pro", "free"):
        body = {"name": plan, "markup_bps": 1}
        assert (await api.operator.put(f"{ADMIN}/plans/{plan}", json=body)).status_code < 300
    await believe(api, "id")
    principals = PostgresPrincipals(books.pool)
    account_id = account_id_for("id", "alice")
    steps = [
        (0, "pro", "pro"),
        (20, "free", "free"),
        (10, "pro", "free"),  # older than one that was seen
        (40, "free", "free"),
        (30, "pro", "free"),
        (50, "unheard-of", "free"),
        (60, None, "free"),
        (70, "pro", "pro"),
    ]
    for after_s, asked, expected in steps:
        issued_at = NOW + timedelta(seconds=after_s)
        await principals.find(ByIdentity(seen(plan_id=asked, issued_at=issued_at)))
        assert await plan_of(books, account_id) == expected, after_s
    other = seen(subject="bob", plan_id="unheard-of")
    await principals.find(ByIdentity(other))
    assert await plan_of(books, account_id_for("id", "bob")) == "standard"


async def test_the_jwt_of_an_identity_that_ended_moves_no_plan(books: Books, api: MeterApi) -> None:
    await api.operator.put(f"{ADMIN}/plans/pro", json={"name": "pro", "markup_bps": 1})
    await believe(api, "id")
    principals = PostgresPrincipals(books.pool)
    first = await principals.find(ByIdentity(seen()))
    assert first is not None
    path = f"{ADMIN}/users/{first.account_id}/identities/{first.credential_id}"
    for number, ended in enumerate(
        (api.operator.post(f"{path}/suspend"), api.operator.delete(path))
    ):
        assert (await ended).status_code < 300
        later = seen(plan_id="pro", issued_at=NOW + timedelta(seconds=1 + number))
        assert await principals.find(ByIdentity(later)) is None
        assert await plan_of(books, first.account_id) == "standard"


async def test_administrators_link_suspend_and_revoke(books: Books, api: MeterApi) -> None:
    await believe(api, "id")
    await api.user("ada")
    principals = PostgresPrincipals(books.pool)
    terms = {"allowed_models": ["openai/*"], "limits": {"requests_per_minute": 5}}
    status, linked = await link(api, "ada", issuer="id", subject="alice", **terms)
    assert (status, linked["scopes"]) == (200, None)
    principal = await principals.find(ByIdentity(seen()))
    assert principal is not None
    assert (principal.account_id, principal.key_rates.requests_per_minute) == ("ada", 5)
    # Also where the account is another claim's.
    principal = await principals.find(ByIdentity(seen(account_subject="org-1")))
    assert principal is not None
    assert principal.account_id == "ada"
    path = f"{ADMIN}/users/ada/identities/{linked['id']}"
    assert (await api.operator.post(f"{path}/suspend")).json()["suspended_at"] is not None
    assert await principals.find(ByIdentity(seen())) is None
    assert (await api.operator.post(f"{path}/resume")).json()["suspended_at"] is None
    assert await principals.find(ByIdentity(seen())) is not None
    assert (await api.operator.delete(path)).status_code == 204
    assert await principals.find(ByIdentity(seen())) is None
    assert (await api.operator.post(f"{path}/resume")).status_code == 404
    assert (await link(api, "ada", issuer="id", subject="alice"))[0] == 409


async def test_certificates_act_by_their_names(books: Books, api: MeterApi) -> None:
    await api.user("ada")
    await api.user("eve")
    name = "spiffe://example.org/job"
    status, linked = await link(api, "ada", certificate=name, scopes=["inference"])
    assert (status, linked["kind"], linked["scopes"]) == (200, "certificate", ["inference"])
    principal = await PostgresPrincipals(books.pool).find(ByCertificate(name))
    assert principal is not None
    assert (principal.account_id, principal.scopes) == ("ada", frozenset({Scope.INFERENCE}))
    assert (await link(api, "eve", certificate=name))[0] == 409
    again = await link(api, "ada", certificate=name, scopes=["inference", "usage:read"])
    assert again[1]["id"] == linked["id"]
    for body in ({}, {"issuer": "id"}, {"subject": "a"}, {"certificate": "a", "issuer": "id"}):
        assert (await link(api, "ada", **body))[0] == 422
    assert (await link(api, "ada", issuer="unknown", subject="a"))[0] == 422
    assert (await link(api, "nobody", certificate="b"))[0] == 404
    foreign = f"{ADMIN}/users/eve/identities/{linked['id']}"
    assert (await api.operator.delete(foreign)).status_code == 404


@pytest.mark.parametrize("subject", ["alice", "a" * 255])
def test_a_subject_of_its_own_account_is_stored_as_it_is(subject: str) -> None:
    assert stored_subject(subject, subject) == subject
