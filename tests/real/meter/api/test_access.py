"""Admission to the meter API: operators, keys with scopes, addresses; leaked keys end."""

import asyncio
import time

import pytest

from meter.api.public.key_reports import ANSWER_AFTER_S, MOST_REPORTS_AT_ONCE
from meter.identity.keys.key_text import mint
from tests.books import Books
from tests.meter_api import ADMIN, OPERATOR_TOKEN, MeterApi, admit_operator, meter_api

REPORTS = "/api/v1/key-reports"


async def test_a_key_with_admin_scopes_administers(api: MeterApi) -> None:
    await api.user("root")
    reader = await api.key("root", scopes=["admin:read"])
    writer = await api.key("root", scopes=["admin:write"])
    both = await api.key("root", scopes=["admin:read", "admin:write"])
    users = f"{ADMIN}/users"
    new = {"email": "new@example.com", "id": "new"}
    assert (await api.as_key(reader["key"], users)).status_code == 200
    assert (await api.as_key(writer["key"], users)).status_code == 403
    assert (await api.as_key(reader["key"], users, "POST", new)).status_code == 403
    assert (await api.as_key(writer["key"], users, "POST", new)).status_code == 201
    # Administering is no reading of one's own, and the other way around.
    assert (await api.as_key(both["key"], "/api/v1/credits")).status_code == 403
    by_header = await api.anybody.get(users, headers={"x-api-key": both["key"]})
    assert by_header.status_code == 200
    await api.operator.post(f"{users}/root/suspend")
    refused = await api.as_key(both["key"], users)
    assert (refused.status_code, refused.json()["code"]) == (403, "account_suspended")
    await api.operator.post(f"{users}/root/resume")
    await api.operator.delete(f"{users}/root/api-keys/{both['id']}")
    assert (await api.as_key(both["key"], users)).status_code == 401


async def test_an_operator_token_is_a_bearer_token_only(api: MeterApi) -> None:
    users = f"{ADMIN}/users"
    for headers in (
        {"x-api-key": OPERATOR_TOKEN},
        {"Authorization": OPERATOR_TOKEN},
        {"Authorization": "Bearer", "x-api-key": OPERATOR_TOKEN},
    ):
        assert (await api.anybody.get(users, headers=headers)).status_code == 401, headers
    bearer = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    assert (await api.anybody.get(users, headers=bearer)).status_code == 200


async def test_a_key_works_from_its_addresses_only(api: MeterApi) -> None:
    await api.user("ada")
    networks = ["10.0.0.0/8", "2001:db8::/32"]
    key = await api.key("ada", scopes=["usage:read", "admin:read"], allowed_addresses=networks)
    headers = {"Authorization": f"Bearer {key['key']}"}
    for address, is_let_in in (
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("11.0.0.1", False),
        ("::1", False),
        ("not-an-address", False),
    ):
        async with api.at(address) as client:
            for path in ("/api/v1/credits", f"{ADMIN}/users"):
                answer = await client.get(path, headers=headers)
                assert answer.status_code == (200 if is_let_in else 403), (address, path)
                if not is_let_in:
                    assert answer.json()["code"] == "address_not_allowed"
            # Nobody trusts that address, so what it claims of others is not heard.
            claimed = {**headers, "x-forwarded-for": "10.1.2.3"}
            answer = await client.get("/api/v1/credits", headers=claimed)
            assert answer.status_code == (200 if is_let_in else 403)


async def test_proxies_of_ours_are_believed_one_hop_at_a_time(books: Books) -> None:
    await admit_operator(books.pool)
    async with meter_api(books.pool, trusted_proxies="192.0.2.0/24") as api:
        await api.user("ada")
        key = await api.key("ada", allowed_addresses=["10.0.0.0/8"])
        async with api.at("192.0.2.7") as client:
            for forwarded, status in (
                ("10.1.2.3", 200),
                ("10.1.2.3, 192.0.2.8", 200),
                ("11.0.0.1", 403),
                ("10.1.2.3, 11.0.0.1", 403),
                ("10.1.2.3, junk", 403),
            ):
                headers = {"Authorization": f"Bearer {key['key']}", "x-forwarded-for": forwarded}
                answer = await client.get("/api/v1/credits", headers=headers)
                assert answer.status_code == status, forwarded


async def test_who_has_a_leaked_key_ends_it_and_learns_nothing(api: MeterApi) -> None:
    await api.user("ada")
    path = f"{ADMIN}/users/ada/api-keys"
    old, kept = await api.key("ada"), await api.key("ada")
    new = (await api.operator.post(f"{path}/{old['id']}/rotate")).json()
    reported = (
        old["key"] + "\n",
        old["key"],
        mint().plain.reveal(),
        mint(kept["id"]).plain.reveal(),
        kept["key"][:-1],
        "no key at all",
        "x" * 512,
    )
    started = time.monotonic()
    answers = await asyncio.gather(
        *(api.anybody.post(REPORTS, json={"key": text}) for text in reported)
    )
    assert time.monotonic() - started >= ANSWER_AFTER_S
    seen = {(answer.status_code, answer.text) for answer in answers}
    assert seen == {(202, '{"status":"received"}')}
    # Both secrets of the key are ended, and nobody else's.
    for secret, status in ((old["key"], 401), (new["key"], 401), (kept["key"], 200)):
        assert (await api.as_key(secret, "/api/v1/credits")).status_code == status
    log = (await api.operator.get(f"{ADMIN}/audit-log", params={"action": "key.leak"})).json()
    (line,) = log["data"]
    assert (line["actor"], line["subject"]) == ("anybody", f"key:{old['id']}")
    assert old["key"][-40:] not in str(log)
    for body in ({}, {"key": ""}, {"key": 5}, {"key": "x" * 513}, {"key": "x", "y": "z"}):
        refused = await api.anybody.post(REPORTS, json=body)
        assert refused.status_code == 422
        assert "xxx" not in refused.text


async def test_a_secret_that_was_rotated_out_says_nothing_any_more(api: MeterApi) -> None:
    await api.user("ada")
    old = await api.key("ada")
    path = f"{ADMIN}/users/ada/api-keys/{old['id']}"
    new = (await api.operator.post(f"{path}/rotate", json={"overlap_s": 0})).json()
    assert (await api.anybody.post(REPORTS, json={"key": old["key"]})).status_code == 202
    assert (await api.as_key(new["key"], "/api/v1/credits")).status_code == 200


async def test_a_flood_of_reports_is_bounded(
    api: MeterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.api.public.key_reports.ANSWER_AFTER_S", 0.5)
    answers = await asyncio.gather(
        *(api.anybody.post(REPORTS, json={"key": "x"}) for _ in range(MOST_REPORTS_AT_ONCE + 5))
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [202] * MOST_REPORTS_AT_ONCE + [429] * 5
    assert (await api.anybody.post(REPORTS, json={"key": "x"})).status_code == 202
