"""One table of requests through two Envoys, gRPC and HTTP before the same authz: same answers."""

import asyncio
import contextlib
import json
import random
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chaos.locks import locked
from tests.e2e.admin import Admin, Customer, chat, untagged
from tests.e2e.envoy.authz_process import (
    EXT_AUTHZ,
    AuthzProcess,
    Document,
    authz_running,
    envoy_running,
    manager_of,
    point,
    put_filter,
    snippet,
)
from tests.e2e.raw_http import JSON, Reply, send
from tests.e2e.running_stack import RunningStack, wait_until
from tests.e2e.test_refusals import CASES, Case
from tests.patience import until
from tests.servers import is_lock_awaited, run_in_thread

CHAT = "/v1/chat/completions"
IN_FLIGHT = "checks_in_flight"
PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"


@dataclass(frozen=True, slots=True)
class EnvoyPair:
    """Two Envoys that differ in how they ask."""

    authz: AuthzProcess
    grpc: str
    http: str

    @property
    def admin(self) -> Admin:
        return self.authz.admin

    def both(self) -> tuple[str, str]:
        return self.grpc, self.http


def misconfigured(settings: Document) -> Document:
    """A route of its own whose policy is misspelt."""
    per_route = {"@type": PER_ROUTE, "check_settings": settings}
    return {
        "name": "misspelt",
        "match": {"path": "/misspelt"},
        "direct_response": {"status": 200},
        "typed_per_filter_config": {EXT_AUTHZ: per_route},
    }


def over_http(document: Document) -> Document:
    """The same Envoy, asking over HTTP."""
    checks = snippet("http-service.yaml")["http_filters"]
    manager = manager_of(document["static_resources"]["listeners"][0])
    for check in checks:
        put_filter(manager, check)
    service = json.loads(json.dumps(checks[0]["typed_config"]["http_service"]))
    service["path_prefix"] = "/envoy;metring=off"
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    routes.insert(0, misconfigured({"http_service": service}))
    return document


def over_grpc(document: Document) -> Document:
    manager = manager_of(document["static_resources"]["listeners"][0])
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    routes.insert(0, misconfigured({"context_extensions": {"metring": "off"}}))
    return document


@pytest.fixture(scope="module")
def envoys(stack: RunningStack) -> Iterator[EnvoyPair]:
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="tk-", dir="/tmp")))
        admin = Admin(stack)
        authz = closing.enter_context(
            authz_running(admin, folder, TOLLKEEPER_PROVIDER_REPORTS="true")
        )
        urls = []
        for name, changed in (("g", over_grpc), ("h", over_http)):
            (folder / name).mkdir()
            document = changed(snippet("envoy.yaml"))
            port = point(document, authz, folder / name)
            closing.enter_context(envoy_running(document, folder / name))
            urls.append(f"http://127.0.0.1:{port}")
        yield EnvoyPair(authz, *urls)


@pytest.fixture(scope="module")
def customers(envoys: EnvoyPair) -> tuple[Customer, Customer]:
    """One account for each way, so that one's requests do not count for the other."""
    return envoys.admin.open_account(credit="1"), envoys.admin.open_account(credit="1")


def told(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    """Return the answer to a client, without what differs from one request to the next."""
    fleeting = ("date", "x-request-id", "x-generation-id")
    varying = [name for name in reply.headers if name.startswith("x-ratelimit-re")]
    headers = {k: v for k, v in reply.headers.items() if k not in fleeting}
    return reply.status, headers | dict.fromkeys(varying, ""), reply.body


def sent(url: str, case: Case, customer: Customer) -> Reply:
    headers = list([JSON] if case.headers is None else case.headers)
    if case.has_key:
        headers.append(customer.bearer)
    return send(url, case.method, case.path, headers, case.body)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.code])
def test_refusals_are_the_same(
    envoys: EnvoyPair, customers: tuple[Customer, Customer], name: str
) -> None:
    grpc, http = map(sent, envoys.both(), (CASES[name],) * 2, customers)
    assert told(grpc) == told(http)
    assert (http.status, http.error["code"]) == (CASES[name].status, CASES[name].code)
    assert not envoys.admin.hold_states(*customers)


def ask(url: str, customer: Customer, **members: Any) -> Reply:
    body = json.dumps(chat(**members)).encode()
    return send(url, "POST", CHAT, [JSON, customer.bearer], body)


@pytest.mark.parametrize(
    ("code", "terms"),
    [
        ("insufficient_credits", {"credit": None}),
        ("model_not_allowed", {"key": {"allowed_models": ["openai/gpt-4o"]}}),
    ],
)
def test_refusals_of_an_account_are_the_same(
    envoys: EnvoyPair, code: str, terms: dict[str, Any]
) -> None:
    replies = [ask(url, envoys.admin.open_account(**terms)) for url in envoys.both()]
    assert told(replies[0]) == told(replies[1])
    assert replies[1].error["code"] == code


def test_limits_are_told_in_the_same_way(envoys: EnvoyPair) -> None:
    plan = {"name": "Two", "markup_bps": 0, "requests_per_minute": 2}
    envoys.admin.call("PUT", "plans/two-a-minute", plan)
    for url in envoys.both():
        customer = envoys.admin.open_account(plan="two-a-minute", credit="1")
        first, _, refused = (ask(url, customer) for _ in range(3))
        assert (first.status, refused.status) == (200, 429)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert int(refused.headers["retry-after"]) >= 1


FACTS = """SELECT account_id, credential_id, model_id, endpoint, prompt_tokens, is_streaming,
    status_code, source FROM usage_records WHERE account_id = $1"""


@pytest.mark.parametrize(
    "members",
    [{}, {"stream": True}, {"max_tokens": None}, {"messages": [{"role": "user", "content": "é€"}]}],
)
def test_what_is_paid_for_is_the_same(envoys: EnvoyPair, members: dict[str, Any]) -> None:
    customers = [envoys.admin.open_account(credit="1") for _ in range(2)]
    bodies = []
    for url, customer in zip(envoys.both(), customers, strict=True):
        reply = ask(url, customer, **members)
        received = envoys.admin.received()
        assert reply.status == 200
        names = [name.lower() for name, _ in received["headers"]]
        assert not [name for name in names if "_" in name or name.startswith("x-tollkeeper")]
        assert customer.key not in str(received["headers"])
        bodies.append(untagged(received["body"]))
    assert bodies[0] == bodies[1]
    if "max_tokens" in members:
        assert b'"max_tokens":' in bodies[1]
    envoys.admin.wait_settled(*customers)
    found = []
    for customer in customers:
        (row,) = envoys.admin.rows(FACTS, customer.id)
        assert (row["account_id"], row["credential_id"]) == (customer.id, customer.key_id)
        assert row["is_streaming"] is bool(members.get("stream"))
        found.append(tuple(row)[2:])
        ((generation, cost),) = envoys.admin.usage(customer).items()
        assert Decimal(cost) == Decimal(envoys.admin.bill_row(generation).cost)
    assert found[0] == found[1]


def test_a_misspelt_policy_lets_nobody_through(
    envoys: EnvoyPair, customers: tuple[Customer, Customer]
) -> None:
    for url, customer in zip(envoys.both(), customers, strict=True):
        reply = send(url, "GET", "/misspelt", [customer.bearer])
        assert (reply.status, reply.error["code"]) == (503, "unavailable")
        assert reply.headers["retry-after"] == "1"


def test_a_client_that_leaves_leaves_no_hold(envoys: EnvoyPair) -> None:
    """The account is locked, so that each check is caught while it places its hold."""
    for url in envoys.both():
        customers: list[Customer] = []

        def is_caught(url: str = url, customers: list[Customer] = customers) -> bool:
            customers.append(envoys.admin.open_account(credit="1"))
            run_in_thread(lambda: leave_while_locked(envoys, url, customers[-1]))
            return "released" in envoys.admin.hold_states(*customers)

        # authz waits for a lock for a second only. On a busy machine that may be over before authz
        # notices that the client left, and then there never was a hold.
        wait_until(is_caught, "a hold was placed and released")
        wait_until(
            lambda customers=customers: envoys.admin.hold_states(*customers).keys() == {"released"},  # type: ignore[misc]
            "no hold is open",
        )


async def leave_while_locked(envoys: EnvoyPair, url: str, customer: Customer) -> None:
    """Send a request, leave while its check waits for the account, then free the account."""

    async def is_idle() -> bool:
        return await asyncio.to_thread(envoys.authz.sample, IN_FLIGHT) == 0

    lock = "SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE"
    async with locked(envoys.admin.dsn, lock, customer.id) as auditor:
        connection = begun(url, customer)
        await until(lambda: is_lock_awaited(auditor), "the check waits for the account")
        connection.close()
        await until(is_idle, "authz has given the check up")


def begun(url: str, customer: Customer) -> socket.socket:
    """A connection on which a whole request was sent and nothing is read."""
    where, body = urlsplit(url), json.dumps(chat()).encode()
    connection = socket.create_connection((str(where.hostname), int(where.port or 0)))
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {customer.bearer[1]}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def test_an_authz_that_hangs_is_a_503(
    envoys: EnvoyPair, customers: tuple[Customer, Customer]
) -> None:
    envoys.authz.process.send_signal(signal.SIGSTOP)
    try:
        replies = run_in_thread(lambda: both_at_once(envoys, customers))
    finally:
        envoys.authz.process.send_signal(signal.SIGCONT)
    assert told(replies[0]) == told(replies[1])
    assert (replies[1].status, replies[1].error["code"]) == (503, "unavailable")
    # What was asked meanwhile is decided later, for nobody.
    envoys.admin.wait_settled(*customers)


async def both_at_once(envoys: EnvoyPair, customers: tuple[Customer, Customer]) -> list[Reply]:
    asking = [asyncio.to_thread(ask, *pair) for pair in zip(envoys.both(), customers, strict=True)]
    return await asyncio.gather(*asking)


def test_no_secret_is_in_the_log(envoys: EnvoyPair, customers: tuple[Customer, Customer]) -> None:
    ask(envoys.http, customers[1])
    provider_key = (envoys.admin.stack.home / "simulator" / "provider.key").read_text().strip()
    for secret in (provider_key, customers[1].key):
        assert secret not in envoys.authz.log
    assert "Traceback" not in envoys.authz.log


DEPARTURES = 200
LONGEST_STAY_S = 0.02


def test_every_hold_of_a_client_that_left_is_known_to_the_log(envoys: EnvoyPair) -> None:
    """HTTP/1 cannot tell whether an answer was read: what stays open, the sweep can find."""
    customer = envoys.admin.open_account(credit="10")
    seed = random.Random(11)

    def leave_early() -> None:
        connection = begun(envoys.http, customer)
        time.sleep(seed.random() * LONGEST_STAY_S)
        connection.close()

    with ThreadPoolExecutor(16) as crowd:
        for leaving in [crowd.submit(leave_early) for _ in range(DEPARTURES)]:
            leaving.result()
    statement = "SELECT request_id FROM holds WHERE account_id = $1 AND state = 'open'"

    def unknown() -> set[str]:
        """Request ids of open holds that are in no line of a request without a decision."""
        (log,) = (envoys.authz.folder / "h").glob("*.jsonl")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        undecided = {line["request_id"] for line in lines if line.get("hold_id") is None}
        return {
            str(row["request_id"]) for row in envoys.admin.rows(statement, customer.id)
        } - undecided

    wait_until(lambda: not unknown(), "every open hold is known to the log")
