"""JWTs in the meter API: administrators sign in with theirs, and passes make no keys."""

import time
from typing import Any

from tests.books import Books
from tests.jwts import FakeDocuments, signer
from tests.meter_api import ADMIN, MeterApi, admit_operator, meter_api

URL = "https://id.example.com/realms/main"
TERMS: dict[str, Any] = {
    "audiences": ["tollkeeper"],
    "algorithms": "ES",
    "scopes": {
        "realm_access.roles": {
            "tollkeeper-admin": ["admin:read", "admin:write"],
            "keeper": ["keys:write", "usage:read", "inference"],
        }
    },
    "default_scopes": ["usage:read"],
    "may_create_accounts": True,
}


def claims(subject: str, *roles: str) -> dict[str, Any]:
    """Return the claims of an access token as Keycloak writes it."""
    now_s = int(time.time())
    return {
        "iss": URL,
        "aud": "tollkeeper",
        "sub": subject,
        "iat": now_s - 1,
        "exp": now_s + 300,
        "realm_access": {"roles": list(roles)},
    }


async def test_administrators_and_users_sign_in_with_the_jwts_that_they_have(
    books: Books,
) -> None:
    await admit_operator(books.pool)
    realm, documents = signer("ES256"), FakeDocuments()
    documents.publish(URL, realm)
    async with meter_api(books.pool, documents=documents) as api:
        put = await api.operator.put(f"{ADMIN}/issuers/sso", json={"url": URL, "terms": TERMS})
        assert put.status_code == 200, put.text
        admin = realm.sign(claims("root", "tollkeeper-admin"))
        nobody = realm.sign(claims("eve", "offline_access"))
        new = {"email": "ada@example.com", "id": "ada"}
        assert (await api.as_key(admin, f"{ADMIN}/users", "POST", new)).status_code == 201
        refused = await api.as_key(nobody, f"{ADMIN}/users")
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        forged = signer("ES256").sign(claims("root", "tollkeeper-admin"))
        assert (await api.as_key(forged, f"{ADMIN}/users")).status_code == 401
        log = await api.operator.get(f"{ADMIN}/audit-log", params={"user": "ada"})
        (line,) = log.json()["data"]
        identity = await books.pool.fetchval("SELECT id FROM credentials WHERE subject = 'root'")
        assert (line["action"], line["actor"]) == ("user.created", f"identity:{identity}")

        keeper = realm.sign(claims("bob", "keeper"))
        made = await api.as_key(
            keeper, "/api/v1/keys", "POST", {"name": "mine", "scopes": ["inference"]}
        )
        assert made.status_code == 201, made.text
        assert made.json()["created_by"].startswith("identity:")
        wider = {"name": "x", "scopes": ["inference", "models:read"]}
        assert (await api.as_key(keeper, "/api/v1/keys", "POST", wider)).status_code == 403
        assert (await api.as_key(nobody, "/api/v1/keys")).json() == {
            "data": [],
            "next_cursor": None,
        }


async def test_a_pass_makes_no_keys_and_gets_no_secret(api: MeterApi) -> None:
    await api.user("ada")
    key = await api.key("ada", scopes=["inference", "keys:write", "usage:read"])
    order = {"scopes": ["keys:write", "usage:read"]}
    made = await api.as_key(key["key"], "/api/v1/auth/token", "POST", order)
    text = made.json()["access_token"]
    keys, other = "/api/v1/keys", await api.key("ada", scopes=["inference"])
    for method, path, body in (
        ("POST", keys, {"name": "x", "scopes": ["usage:read"]}),
        ("PATCH", f"{keys}/{key['id']}", {"name": "y"}),
        ("POST", f"{keys}/{key['id']}/rotate", {}),
        ("POST", f"{keys}/{other['id']}/rotate", {}),
    ):
        refused = await api.as_key(text, path, method, body)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted"), path
    assert (await api.as_key(text, f"{keys}/{other['id']}", "DELETE")).status_code == 204
    own = (await api.as_key(text, "/api/v1/audit-log")).json()["data"]
    assert own[0]["actor"].startswith("pass:")
