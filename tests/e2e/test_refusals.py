"""Requests that must not reach the provider do not; refusals have the shape that clients read."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.e2e.admin import Admin, Customer, chat
from tests.e2e.raw_http import JSON, Headers, send

CHAT = "/v1/chat/completions"
GOOD = json.dumps(chat()).encode()
DEPTH = 100_000
TOO_MANY_BYTES = 25 * 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """A request that must be refused. `headers` None stands for the right ones."""

    status: int
    code: str
    body: bytes | None = field(default=GOOD, repr=False)
    method: str = "POST"
    path: str = CHAT
    headers: Headers | None = None
    has_key: bool = True


def chat_with(extra: str) -> bytes:
    """A good body with some more text inside."""
    return GOOD[:-1] + b", " + extra.encode() + b"}"


def lost(path: str, method: str = "POST", body: bytes | None = GOOD) -> Case:
    """Nothing is there."""
    return Case(404, "route_not_found", body, method, path)


def not_ours(path: str, status: int = 404) -> Case:
    """The meter's own interface answers; `test_the_meter_answers_for_itself` looks at how."""
    return Case(status, "", None, "GET", path)


CASES: dict[str, Case] = {
    "no key": Case(401, "missing_api_key", has_key=False),
    "an empty key": Case(
        401, "missing_api_key", headers=[("Authorization", "Bearer "), JSON], has_key=False
    ),
    "a key of the provider": Case(
        401, "invalid_api_key", headers=[("Authorization", "Bearer sk-or-1"), JSON], has_key=False
    ),
    "basic authentication": Case(
        401, "invalid_api_key", headers=[("Authorization", "Basic YTpi"), JSON], has_key=False
    ),
    "two authorizations": Case(
        400, "conflicting_credentials", headers=[("Authorization", "Bearer other"), JSON]
    ),
    "two kinds of keys": Case(
        400, "conflicting_credentials", headers=[("x-api-key", "other"), JSON]
    ),
    "two keys of the other kind": Case(
        400,
        "conflicting_credentials",
        headers=[("x-api-key", "a"), ("x-api-key", "b"), JSON],
        has_key=False,
    ),
    "no content type": Case(415, "unsupported_content_type", headers=[]),
    "a form": Case(
        415,
        "unsupported_content_type",
        headers=[("Content-Type", "application/x-www-form-urlencoded")],
    ),
    "text": Case(415, "unsupported_content_type", headers=[("Content-Type", "text/plain")]),
    "two content types": Case(
        415, "unsupported_content_type", headers=[JSON, ("Content-Type", "text/plain")]
    ),
    "another alphabet": Case(
        415,
        "unsupported_content_type",
        headers=[("Content-Type", "application/json; charset=utf-16")],
    ),
    "a compressed body": Case(
        415,
        "unsupported_content_encoding",
        gzip.compress(GOOD),
        headers=[JSON, ("Content-Encoding", "gzip")],
    ),
    "a body that says it is compressed": Case(
        415, "unsupported_content_encoding", headers=[JSON, ("Content-Encoding", "br")]
    ),
    "a compressed body that does not say so": Case(400, "invalid_json", gzip.compress(GOOD)),
    "a query": Case(400, "query_not_allowed", path=f"{CHAT}?model=openai/gpt-4o"),
    "an empty query": Case(400, "query_not_allowed", path=f"{CHAT}?"),
    "no body": Case(400, "invalid_json", b""),
    "not JSON": Case(400, "invalid_json", b"model=openai/gpt-4o-mini"),
    "cut JSON": Case(400, "invalid_json", GOOD[:-1]),
    "two documents": Case(400, "invalid_json", GOOD + GOOD),
    "a list": Case(400, "invalid_json", b"[" + GOOD + b"]"),
    "not UTF-8": Case(400, "invalid_json", GOOD.replace(b"Hello", b"\xff\xfe")),
    "a byte order mark": Case(400, "invalid_json", b"\xef\xbb\xbf" + GOOD),
    "not a number": Case(400, "invalid_json", chat_with('"temperature": NaN')),
    "infinity": Case(400, "invalid_json", chat_with('"temperature": -Infinity')),
    "a model twice": Case(400, "duplicate_key", chat_with('"model": "openai/gpt-4o"')),
    "a limit twice": Case(400, "duplicate_key", chat_with('"max_tokens": 1000000')),
    "the same in disguise": Case(400, "duplicate_key", chat_with('"max\\u005ftokens": 9')),
    "twice further down": Case(400, "duplicate_key", chat_with('"metadata": {"a": 1, "a": 2}')),
    "another spelling": Case(400, "invalid_value", chat_with('"Max_Tokens": 1000000')),
    "a deep hole": Case(400, "invalid_json", chat_with('"metadata": ' + "[" * DEPTH + "]" * DEPTH)),
    "a deep hole of objects": Case(
        400, "invalid_json", chat_with('"metadata": ' + '{"a":' * DEPTH + "1" + "}" * DEPTH)
    ),
    "a limit below one": Case(400, "invalid_value", GOOD.replace(b": 20", b": -1")),
    "a limit of a kind": Case(400, "invalid_value", GOOD.replace(b": 20", b': "20"')),
    "a broken limit": Case(400, "invalid_value", GOOD.replace(b": 20", b": 20.0")),
    "an unbounded member": Case(400, "cost_unbounded", chat_with('"preset": "mine"')),
    "a tool that runs elsewhere": Case(
        400, "cost_unbounded", chat_with('"tools": [{"type": "code_interpreter"}]')
    ),
    "a plugin": Case(400, "cost_unbounded", chat_with('"plugins": [{"id": "fusion"}]')),
    "sound": Case(400, "cost_unbounded", chat_with('"modalities": ["text", "audio"]')),
    "no model": Case(400, "invalid_value", GOOD.replace(b'"model"', b'"module"')),
    "an unknown model": Case(404, "model_not_found", GOOD.replace(b"gpt-4o-mini", b"gpt-0")),
    "an unknown fallback": Case(404, "model_not_found", chat_with('"models": ["no/such"]')),
    "a model without a price": Case(
        404, "model_not_found", GOOD.replace(b"openai/gpt-4o-mini", b"openrouter/auto")
    ),
    "a body of 25 MiB": Case(
        413, "request_too_large", chat_with('"user": "' + "u" * TOO_MANY_BYTES + '"')
    ),
    "GET on chat": lost(CHAT, "GET", None),
    "PUT on chat": lost(CHAT, "PUT"),
    "DELETE on chat": lost(CHAT, "DELETE", None),
    "QUERY on chat": lost(CHAT, "QUERY"),
    "POST on models": Case(405, "method_not_allowed", path="/v1/models"),
    "keys of the provider": lost("/v1/keys"),
    "keys below the other prefix": lost("/api/v1/llm/keys"),
    "activity below the other prefix": lost("/api/v1/llm/activity", "GET", None),
    "moderations": lost("/v1/moderations"),
    "a base of another service": lost("/openai/deployments/gpt-4o/chat/completions"),
    "no base": lost("/chat/completions"),
    "a base twice": lost("/v1/v1/chat/completions"),
    "files": lost("/v1/files"),
    "the root": lost("/", "GET", None),
    "health": lost("/healthz", "GET", None),
    "readiness": lost("/readyz", "GET", None),
    "metrics": lost("/metrics", "GET", None),
    "up and down again": lost("/v1/../v1/files", "GET", None),
    "up to the keys": lost("/v1/chat/completions/../../keys"),
    "dots in disguise": lost("/v1/%2e%2e/v1/files", "GET", None),
    "dots and a slash in disguise": lost("/v1/chat/completions/..%2f..%2fkeys"),
    "twice in disguise": lost("/v1/chat/%252e%252e/keys"),
    "a backslash": lost("/v1\\keys"),
    "a letter in disguise": lost("/v1/chat/%63ompletions/x"),
    "something behind": lost(CHAT + "/"),
    "something behind, in disguise": lost(CHAT + "%2f..%2fkeys"),
    "a parameter": lost(CHAT + ";jsessionid=1"),
    "capitals": lost("/V1/Chat/Completions"),
}


@pytest.fixture
def nothing_moves(admin: Admin) -> Iterator[Customer]:
    """An account whose credit stays whole, and an upstream that hears and bills nothing."""
    customer = admin.open_account()
    billed, received = len(admin.bill()), admin.received()["count"]
    yield customer
    assert admin.received()["count"] == received
    assert len(admin.bill()) == billed
    assert admin.hold_states(customer) == {}
    assert admin.credits(customer)["available"] == 5


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_and_goes_no_further(
    admin: Admin, nothing_moves: Customer, name: str
) -> None:
    case = CASES[name]
    headers = [nothing_moves.bearer] if case.has_key else []
    headers += [JSON] if case.headers is None else case.headers
    reply = send(admin.stack.gateway, case.method, case.path, headers, case.body)
    assert (reply.status, reply.error["code"]) == (case.status, case.code)
    assert nothing_moves.key.encode() not in reply.body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/keys", 200),
        ("POST", "/api/v1/keys", 403),
        ("PUT", "/api/v1/keys", 405),
        ("GET", "/api/v1/auth/keys", 404),
        ("GET", "/api/v1/admin/users", 403),
        ("GET", "/v1/../api/v1/admin/users", 403),
    ],
)
def test_the_meter_answers_for_itself(
    admin: Admin, nothing_moves: Customer, method: str, path: str, status: int
) -> None:
    """Its interface has names in common with the provider's; the provider hears nothing of it."""
    reply = send(admin.stack.gateway, method, path, [nothing_moves.bearer])
    assert reply.status == status
    if status >= 400:
        assert reply.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    "path", ["//v1/chat/completions", "/v1/./chat//completions", "/v1%2fchat/completions"]
)
def test_another_spelling_of_a_path_is_that_path(admin: Admin, path: str) -> None:
    """Router and decision see one path; what is served is paid for."""
    customer = admin.open_account()
    reply = send(admin.stack.gateway, "POST", path, [customer.bearer, JSON], GOOD)
    assert reply.status == 200
    admin.wait_settled(customer)
    assert admin.hold_states(customer) == {"settled": 1}


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_other_ways_to_say_json_are_understood(admin: Admin, content_type: str) -> None:
    customer = admin.open_account()
    headers = [customer.bearer, ("Content-Type", content_type)]
    assert send(admin.stack.gateway, "POST", CHAT, headers, GOOD).status == 200


def test_what_a_client_calls_itself_stays_here(admin: Admin) -> None:
    """Nothing that a client sets identifies a request for billing, or the client upstream."""
    customer = admin.open_account()
    planted = {
        "cookie": "session=planted",
        "x-forwarded-for": "203.0.113.9",
        "x-envoy-upstream-alt-stat-name": "planted",
        "x-tollkeeper-hold-id": "0" * 32,
        "openai-organization": "org-planted",
        "proxy-authorization": "Basic cGxhbnRlZA==",
        "referer": "https://planted.example.com",
    }
    assert admin.ask(customer, list(planted.items())).status == 200
    received = admin.received()
    ours = f"Bearer {(admin.stack.home / 'simulator' / 'provider.key').read_text().strip()}"
    assert received["authorization_sha256"] == hashlib.sha256(ours.encode()).hexdigest()
    arrived = dict(received["headers"])
    assert not {name.lower() for name in arrived} & set(planted)
    assert customer.key not in str(arrived)
