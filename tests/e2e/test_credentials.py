"""Whatever is wrong with a credential, the answer is one; and only two headers carry any."""

import http.client
import json
import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from urllib.parse import urlsplit

import pytest

from meter.clock import SystemClock
from meter.identity.keys.key_text import mint
from meter.jwts.signing import new_signing_key, pass_claims, sign_pass
from meter.scopes import Scope
from tests.e2e.admin import Admin, Customer, chat
from tests.e2e.raw_http import JSON, send
from tests.e2e.running_stack import wait_until
from tests.patience import WAIT_S

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat()).encode()
ROUNDS = 40
# Answers are spread at random over 10 ms, so half of them lie within 5 ms (on a busy machine within
# more). Medians of 40 then differ by a sixth of that, and a kind from all others by 0.05. Nine
# kinds that are answered alike stay far below these limits.
MOST_MEDIANS_APART = 1.2
MOST_UNEVEN = 0.22
# Not the credential's, and another in every answer.
OF_EACH_ANSWER = ("date", "x-request-id", "x-envoy-upstream-service-time")


@pytest.fixture
def customer(admin: Admin) -> Customer:
    """An account whose credentials are good."""
    return admin.open_account()


@pytest.fixture
def bad(admin: Admin, customer: Customer) -> dict[str, Callable[[], str]]:
    """Makers of credentials that are not good, by what is wrong with them."""
    issue = f"users/{customer.id}/api-keys"
    revoked = admin.call("POST", issue, {"name": "revoked"})
    admin.call("DELETE", f"{issue}/{revoked['id']}")
    suspended = admin.call("POST", issue, {"name": "suspended"})
    admin.call("POST", f"{issue}/{suspended['id']}/suspend")
    expired = admin.call("POST", issue, {"name": "expired", "expires_in_days": 1})
    rotated = admin.call("POST", issue, {"name": "rotated"})
    admin.call("POST", f"{issue}/{rotated['id']}/rotate", {"overlap_s": 0})
    gone = admin.call("POST", f"users/{customer.id}/passes", {})
    admin.call("DELETE", f"users/{customer.id}/passes/{gone['jti']}")
    admin.rows("UPDATE credentials SET expires_at = now() WHERE id = $1 RETURNING 1", expired["id"])
    return {
        "unknown": lambda: mint().plain.reveal(),
        "revoked": lambda: revoked["key"],
        "suspended": lambda: suspended["key"],
        "expired": lambda: expired["key"],
        "rotated out": lambda: rotated["key"],
        "mistyped": lambda: customer.key[:-1] + ("A" if customer.key[-1] != "A" else "B"),
        "of another shop": lambda: "sk-or-v1-" + "0" * 64,
        "a revoked pass": lambda: gone["access_token"],
        "a forged pass": forged_pass,
    }


def forged_pass() -> str:
    """A pass as ours would be, signed by somebody else's key."""
    made = new_signing_key("EdDSA")
    now = SystemClock().now()
    claims = pass_claims("x", "tollkeeper", "a", "b", "c" * 16, [Scope.INFERENCE], now, now)
    return sign_pass(made.private, made.kid, "EdDSA", claims).reveal()


class Line:
    """One connection to the gateway, kept open."""

    def __init__(self, origin: str) -> None:
        where = urlsplit(origin)
        self._connection = http.client.HTTPConnection(
            where.hostname or "", where.port, timeout=WAIT_S
        )

    def ask(self, credential: str) -> tuple[int, dict[str, str], bytes, float]:
        """Status, headers, body and seconds."""
        headers = {"authorization": f"Bearer {credential}", "content-type": "application/json"}
        began = time.perf_counter()
        self._connection.request("POST", CHAT, BODY, headers)
        reply = self._connection.getresponse()
        body = reply.read()
        taken = time.perf_counter() - began
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, body, taken

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@pytest.fixture
def line(admin: Admin) -> Iterator[Line]:
    line = Line(admin.stack.gateway)
    yield line
    line.close()


def test_one_answer_for_whatever_is_wrong(
    line: Line, bad: dict[str, Callable[[], str]], customer: Customer
) -> None:
    assert line.ask(customer.key)[0] == 200
    wait_until(lambda: line.ask(bad["revoked"]())[0] == 401, "the revocation shows")
    answers = {name: line.ask(make()) for name, make in bad.items()}
    told = [
        (status, {k: v for k, v in headers.items() if k not in OF_EACH_ANSWER}, body)
        for status, headers, body, _ in answers.values()
    ]
    assert all(one == other for one, other in pairwise(told)), dict(zip(answers, told, strict=True))
    assert told[0][0] == 401
    assert json.loads(told[0][2])["error"]["code"] == "invalid_api_key"


def test_time_tells_nothing(line: Line, bad: dict[str, Callable[[], str]]) -> None:
    """Kinds in random order; no two differ by more than a kind differs from itself by chance.

    How uneven two kinds are is how far the share of pairs in which the one was slower (what the
    test of Mann and Whitney counts) is from a half.
    """
    taken: dict[str, list[float]] = {name: [] for name in bad}
    order = list(bad) * ROUNDS
    random.Random(4).shuffle(order)
    for name in order:
        taken[name].append(line.ask(bad[name]())[3])
    medians = {name: statistics.median(times) for name, times in taken.items()}
    low, _, high = statistics.quantiles(chain.from_iterable(taken.values()), n=4)
    apart = (max(medians.values()) - min(medians.values())) / (high - low)
    assert apart < MOST_MEDIANS_APART, (apart, medians)
    for name, times in taken.items():
        others = [time for other, found in taken.items() if other != name for time in found]
        slower = sum(mine > other for mine in times for other in others)
        uneven = abs(slower / (len(times) * len(others)) - 0.5)
        assert uneven < MOST_UNEVEN, (name, uneven, medians)


def test_the_pace_is_what_hides_it(line: Line, bad: dict[str, Callable[[], str]]) -> None:
    """The check above can fail: a refusal without a look-up is answered no sooner than others."""
    assert min(line.ask(bad["mistyped"]())[3] for _ in range(10)) >= 0.009


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
def test_every_byte_in_a_credential(admin: Admin, customer: Customer, name: str) -> None:
    """No byte is a way in, a fault, or a longer wait."""
    before = admin.received()["count"]
    prefix = "Bearer " if name == "authorization" else ""
    where = urlsplit(admin.stack.gateway)
    for byte in range(256):
        text = customer.key[:30].encode() + bytes([byte]) + customer.key[31:].encode()
        if text == customer.key.encode():
            continue
        status = raw_status(where.port or 0, name, prefix.encode() + text)
        assert status in (400, 401), (byte, status)
    assert admin.received()["count"] == before


def raw_status(port: int, name: str, value: bytes) -> int:
    """The status of a request whose header is these bytes; 400 where the connection just ends."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\nConnection: close\r\n{name}: "
    ).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        connection.sendall(head + value + b"\r\n\r\n" + BODY)
        first = connection.recv(4096)
    return int(first.split(b" ", 2)[1]) if first else 400


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"{CHAT}?api_key={{key}}", [], 401),
        (f"{CHAT}?access_token={{key}}", [("authorization", "Bearer {key}")], 400),
        (CHAT, [("cookie", "api_key={key}; authorization=Bearer {key}")], 401),
        (f"/{{key}}{CHAT}", [], 404),
        (CHAT, [("authorization", "Bearer {key},Bearer {key}")], 400),
        (CHAT, [("authorization", "Bearer {key}"), ("authorization", "Bearer {key}")], 400),
        (CHAT, [("authorization", "Bearer {key}"), ("x-api-key", "tk-other")], 400),
        (CHAT, [("proxy-authorization", "Bearer {key}")], 401),
        (CHAT, [("authorization", "Bearer {key} {key}")], 401),
        (CHAT, [("authorization", "{key}"), ("x-api-key", "{key}")], 200),
    ],
)
def test_only_two_headers_carry_a_credential(
    admin: Admin, customer: Customer, path: str, headers: list[tuple[str, str]], status: int
) -> None:
    sent = [(name, value.replace("{key}", customer.key)) for name, value in headers]
    target = path.replace("{key}", customer.key)
    reply = send(admin.stack.gateway, "POST", target, [*sent, JSON], BODY)
    # A query is refused before anybody asks who calls.
    expected = 400 if "?" in path else status
    assert reply.status == expected, reply.body
    assert customer.key.encode() not in reply.body
