"""`tollkeeper explain` says what Envoy's clients are then told, and shows no secret."""

import base64
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.admin import MODEL, Admin, Customer, chat
from tests.e2e.raw_http import JSON, Headers, send, send_json
from tollkeeper.stack.home import locate

CHAT = "/v1/chat/completions"
GOOD = json.dumps(chat()).encode()


@dataclass(frozen=True, slots=True)
class Case:
    """A request that a key presents; `key` are terms of it."""

    code: str | None
    body: bytes = GOOD
    path: str = CHAT
    headers: Headers = (JSON,)
    key: dict[str, Any] = field(default_factory=dict)
    credit: str = "1"
    has_key: bool = True


def body(**members: Any) -> bytes:
    """A short chat with these members."""
    return json.dumps(chat(**members)).encode()


CASES: dict[str, Case] = {
    "good": Case(None),
    "a stream without a limit": Case(None, body(max_tokens=None, stream=True)),
    "no key": Case("missing_api_key", has_key=False),
    "two keys": Case("conflicting_credentials", headers=(JSON, ("x-api-key", "other"))),
    "a foreign key": Case("invalid_api_key", headers=(JSON, ("x-api-key", "sk-1")), has_key=False),
    "a query": Case("query_not_allowed", path=f"{CHAT}?a=b"),
    "a form": Case("unsupported_content_type", headers=(("Content-Type", "text/plain"),)),
    "not JSON": Case("invalid_json", b"{"),
    "a member twice": Case("duplicate_key", b'{"model":"a","model":"b"}'),
    "an unknown model": Case("model_not_found", body(model="no/such")),
    "a model that the key may not use": Case(
        "model_not_allowed", key={"allowed_models": ["no/such"]}
    ),
    "another scope": Case("insufficient_scope", key={"scopes": ["usage:read"]}),
    "another address": Case("address_not_allowed", key={"allowed_addresses": ["203.0.113.0/24"]}),
    "a budget that is used up": Case("budget_exceeded", key={"budgets": {"day": "0.00000001"}}),
    "what cannot be bounded": Case("cost_unbounded", body(preset="x")),
    "a wrong value": Case("invalid_value", body(max_tokens="9")),
    "too little credit": Case("insufficient_credits", body(max_tokens=16_000), credit="0.0001"),
}


def explain(admin: Admin, document: dict[str, Any]) -> dict[str, Any]:
    """Return the explanation of authz itself."""
    socket = locate(admin.stack.home).run / "authz-health.sock"
    reply = send("http://authz", "POST", "/explain", [JSON], json.dumps(document).encode(), socket)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_explanation_agrees_with_the_answer(admin: Admin, name: str) -> None:
    case = CASES[name]
    customer = admin.open_account(case.credit, case.key)
    headers = [*case.headers, *([customer.bearer] if case.has_key else [])]
    document = {
        "path": case.path,
        "headers": [list(header) for header in headers],
        "body_base64": base64.b64encode(case.body).decode(),
    }
    found = explain(admin, document)
    assert not admin.hold_states(customer)
    reply = send(admin.stack.gateway, "POST", case.path, headers, case.body)
    if case.code is None:
        assert (found["verdict"], reply.status) == ("allow", 200), found
        assert [one["outcome"] for one in found["phases"]] == ["ok"] * 9
    else:
        answer = found["answer"]
        assert (found["verdict"], answer["code"]) == ("refuse", case.code), found
        assert (answer["status"], answer["message"]) == (reply.status, reply.error["message"])
        assert reply.error["code"] == case.code
    assert customer.key not in json.dumps(found)


def document_of(customer: Customer, credential: str | None = None) -> dict[str, Any]:
    """A short chat, with a key or another credential."""
    headers = [["Authorization", f"Bearer {credential or customer.key}"], [*JSON]]
    return {"headers": headers, "body_base64": base64.b64encode(GOOD).decode()}


def test_a_limit_is_looked_at_and_not_used_up(admin: Admin) -> None:
    customer = admin.open_account(key={"limits": {"requests_per_minute": 1}})
    for _ in range(3):
        assert explain(admin, document_of(customer))["verdict"] == "allow"
    assert admin.ask(customer).status == 200
    found = explain(admin, document_of(customer))
    reply = admin.ask(customer)
    assert found["answer"]["code"] == reply.error["code"] == "rate_limit_exceeded"
    assert found["answer"]["message"] == reply.error["message"]
    assert found["answer"]["headers"]["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(found["answer"]["headers"]["retry-after"]) <= 61


def test_a_pass_is_explained_without_its_signature(admin: Admin) -> None:
    customer = admin.open_account()
    order = {"expires_in_s": 300, "scopes": ["inference"]}
    made = send_json(
        admin.stack.gateway, "POST", "/api/v1/auth/token", order, [customer.bearer]
    ).json()
    jwt, signature = made["access_token"], made["access_token"].split(".")[2]
    found = explain(admin, document_of(customer, jwt))
    assert found["verdict"] == "allow", found
    assert f"with the pass {made['jti']} of the account {customer.id}" in found["phases"][1]["says"]
    assert made["jti"] in found["credential"]
    forged = explain(admin, document_of(customer, jwt[:-8] + "AAAAAAAA"))
    assert "The JWT is refused: " in forged["phases"][1]["says"]
    assert signature not in json.dumps([found, forged])
    admin.call("DELETE", f"users/{customer.id}/api-keys/{customer.key_id}")
    found = explain(admin, document_of(customer, jwt))
    assert "was revoked at" in found["phases"][1]["says"]


def run(
    admin: Admin, *arguments: str, stdin: str = "", **variables: str
) -> "subprocess.CompletedProcess[str]":
    """`tollkeeper explain ARGUMENTS` as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "tollkeeper", "explain", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**admin.stack.environment, **variables},
        timeout=60,
    )


def line(admin: Admin, key: str) -> str:
    """Return the text that a person copies from a document."""
    content = json.dumps(chat())
    return (
        f"curl -sN {admin.stack.gateway}{CHAT} -H 'Authorization: Bearer {key}' \\\n"
        f"  -H 'Content-Type: application/json' -d '{content}'"
    )


def test_a_pasted_line_is_explained_to_people_and_programs(admin: Admin) -> None:
    customer = admin.open_account()
    done = run(admin, "--table", "-", stdin=line(admin, customer.key))
    assert done.returncode == 0, done.stderr
    assert "USD would be held" in " ".join(done.stdout.split())
    assert f"tk-{customer.key_id}" in done.stdout
    assert customer.key not in done.stdout + done.stderr
    admin.call("DELETE", f"users/{customer.id}/api-keys/{customer.key_id}")
    done = run(admin, "-", stdin=line(admin, customer.key))
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["answer"]["code"] == "invalid_api_key"
    assert "was revoked at" in found["phases"][1]["says"]


def test_a_request_is_told_by_options_and_words_as_well(admin: Admin, tmp_path: Path) -> None:
    customer = admin.open_account(key={"allowed_models": [MODEL]})
    (tmp_path / "key").write_text(customer.key + "\n")
    (tmp_path / "body").write_bytes(GOOD)
    asked = ("--key-file", str(tmp_path / "key"), "--body-file", str(tmp_path / "body"))
    assert run(admin, *asked).returncode == 0
    words = ("--", "curl", f"{admin.stack.gateway}{CHAT}", "--json", "{}")
    done = run(admin, *words)
    assert (done.returncode, json.loads(done.stdout)["answer"]["code"]) == (1, "missing_api_key")


def test_nobody_to_ask_and_nothing_to_ask_are_told_apart(admin: Admin, tmp_path: Path) -> None:
    done = run(admin, "--authz", f"unix:{tmp_path}/none.sock", "--", "curl", "http://h/")
    assert (done.returncode, "is Tollkeeper running?" in done.stderr) == (3, True)
    done = run(admin, "--", "curl", "--form", "a=b", "http://h/")
    assert (done.returncode, "--form" in done.stderr) == (2, True)


def test_nobody_reaches_it_through_envoy(admin: Admin) -> None:
    customer: Customer = admin.open_account()
    reply = send(admin.stack.gateway, "POST", "/explain", [customer.bearer, JSON], b"{}")
    assert reply.status == 404
