"""The decision over HTTP: what is asked, what is answered, and what happens to who leaves."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from authz.decide import Decider
from authz.decision import (
    Allow,
    AllowUnmetered,
    Decision,
    Edit,
    LimitStatus,
    OutageKind,
    Reason,
    Upstream,
    deny,
)
from authz.http_checks import application, targets
from authz.http_checks.answers import to_answer
from authz.http_checks.application import HttpForm
from authz.http_checks.targets import Form, read_target
from authz.metrics import Metrics
from authz.policy import RouteMisconfigured, route_policy
from authz.protos.ext_authz_pb2 import CheckRequest, CheckResponse
from authz.request import AuthRequest
from authz.service import CheckService
from meter.clock import SystemClock
from meter.errors import StoreUnavailable
from meter.limits.limits import LimitKind
from meter.sealing import SecretText
from tests.patience import WAIT_S, until

HOLD = UUID(int=7)
LIMITS = (LimitStatus(LimitKind.REQUESTS, 60, 59, 1.0),)
EDITS = (Edit(1, 0, '"max_tokens":77,'), Edit(9, 4, "é"))
ALLOW = Allow(
    HOLD, "acme", "key1", "acme/one", "chat_completions", SecretText("sk-or-planted"), EDITS, LIMITS
)
UNMETERED = AllowUnmetered("acme", "key1", ("inference", "tools"), LIMITS)
Answering = Callable[[AuthRequest], Awaitable[Decision]]


def target_of(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


@pytest.mark.parametrize(
    ("path", "query", "form", "extensions", "original"),
    [
        ("/envoy/v1/x", "", Form.ENVOY, {}, "/v1/x"),
        ("/envoy/v1/x", "a=b", Form.ENVOY, {}, "/v1/x?a=b"),
        ("/envoy/v1/x?", "", Form.ENVOY, {}, "/v1/x?"),
        ("/envoy/", "", Form.ENVOY, {}, "/"),
        ("/envoy/;metering=off/x", "", Form.ENVOY, {}, "/;metering=off/x"),
        ("/envoy//scope=usage/x", "", Form.ENVOY, {}, "//scope=usage/x"),
        (
            "/envoy;scope=usage;metering=off/v1/x",
            "metering=on",
            Form.ENVOY,
            {"scope": "usage", "metering": "off"},
            "/v1/x?metering=on",
        ),
        ("/forward", "", Form.FORWARD, {}, ""),
        ("/forward", "metering=off", Form.FORWARD, {"metering": "off"}, ""),
        ("/forward/nginx", "metering=off", Form.NGINX, {"metering": "off"}, ""),
    ],
)
def test_the_proxys_own_url_says_the_form_and_the_policy(
    path: str, query: str, form: Form, extensions: dict[str, str], original: str
) -> None:
    assert read_target(target_of(path, query)) == targets.Target(form, extensions, original)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/chat/completions", ""),
        ("/envoyx/v1", ""),
        ("/envoy", ""),
        ("/envoy*", ""),
        ("/envoy;/v1", ""),
        ("/envoy;metring=off/v1", ""),
        ("/envoy;metering=off;metering=off/v1", ""),
        ("/envoy;client-certificates=verified/v1", ""),
        ("/forward/", "metering=off"),
        ("/forward/nginx/x", "metering=off"),
        ("/forward", "metering=off&metering=off"),
        ("/forward", "metering=off&"),
        ("/forward", "metering=of"),
        ("/forward", "scope=%75sage"),
        ("/", ""),
        ("", ""),
    ],
)
def test_what_cannot_be_read_lets_nobody_through(path: str, query: str) -> None:
    with pytest.raises(RouteMisconfigured):
        route_policy(read_target(target_of(path, query)).extensions)


def test_an_allowance_says_everything_in_headers() -> None:
    answer = to_answer(ALLOW, Form.ENVOY)
    found = dict(answer.headers)
    assert (answer.status, answer.body) == (200, b"")
    assert found["authorization"] == "Bearer sk-or-planted"
    assert found["hold_id"] == HOLD.hex
    assert found["is_streaming"] == "false"
    assert found["edits"] == '1:0:16:"max_tokens":77,;9:4:2:é;'
    assert found["x-ratelimit-remaining-requests"] == "59"
    assert "x-api-key" in found["x-envoy-auth-headers-to-remove"]
    assert "planted" not in repr(answer)
    bare = dict(to_answer(replace(ALLOW, edits=()), Form.ENVOY).headers)
    assert "edits" not in bare


def test_an_allowance_off_the_default_path_names_its_provider() -> None:
    upstream = Upstream("route-fast", "openai", False, (("google", SecretText("planted-two")),))
    answer = to_answer(replace(ALLOW, upstream=upstream), Form.ENVOY)
    found = dict(answer.headers)
    assert (found["tk-cluster"], found["cluster"]) == ("route-fast", "route-fast")
    assert (found["provider"], found["is_own_key"]) == ("openai", "false")
    assert found["tk-key-openai"] == found["authorization"] == "Bearer sk-or-planted"
    assert found["tk-key-google"] == "Bearer planted-two"
    assert "planted" not in repr(answer)
    assert "cluster" not in dict(to_answer(ALLOW, Form.ENVOY).headers)


def test_an_unmetered_allowance_says_who_calls_and_gives_no_key_out() -> None:
    for form in Form:
        found = dict(to_answer(UNMETERED, form).headers)
        assert found["x-tollkeeper-account"] == "acme"
        assert found["x-tollkeeper-scopes"] == "inference tools"
        assert ("authorization" in found) is False
        assert ("account_id" in found) is (form is Form.ENVOY)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.INVALID_API_KEY, 401),
        (Reason.ACCOUNT_SUSPENDED, 403),
        (Reason.RATE_LIMIT_EXCEEDED, 403),
        (Reason.INSUFFICIENT_CREDITS, 403),
        (Reason.CONFLICTING_CREDENTIALS, 403),
    ],
)
def test_nginx_is_told_in_the_statuses_that_it_passes_on(reason: Reason, status: int) -> None:
    plain = to_answer(deny(reason), Form.FORWARD)
    answer = to_answer(deny(reason), Form.NGINX)
    found = dict(answer.headers)
    assert (plain.status, answer.status) == (reason.value.status, status)
    assert found["x-tollkeeper-status"] == str(reason.value.status)
    assert found["x-tollkeeper-error"].encode() == answer.body == plain.body
    assert ("www-authenticate" in found) is (status == 401)


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("kind", list(OutageKind))
def test_an_outage_is_503_for_everyone(form: Form, kind: OutageKind) -> None:
    answer = to_answer(kind, form)
    assert answer.status == 503
    assert dict(answer.headers)["retry-after"] == "1"
    assert json.loads(answer.body)["error"]["code"] == kind.value.code


@dataclass
class Stub:
    """Decides as it is told, and remembers."""

    answering: Answering
    asked: list[AuthRequest] = field(default_factory=list)
    taken_back: list[UUID] = field(default_factory=list)
    cancelled: int = 0

    async def decide(self, request: AuthRequest, _: float) -> Decision:
        self.asked.append(request)
        try:
            return await self.answering(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def take_back(self, hold_id: UUID) -> None:
        self.taken_back.append(hold_id)


@dataclass
class Proxy:
    """One connection of a proxy to the application, in memory."""

    form: HttpForm
    sent: list[Any] = field(default_factory=list)
    coming: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)

    async def ask(
        self, path: str = "/envoy/v1/chat/completions", query: str = "", *pieces: bytes, **more: Any
    ) -> Any:
        scope = {
            "type": "http",
            "method": "POST",
            "extensions": {application.TARGET: {"raw": target_of(path, query).encode()}},
            "headers": [(b"cookie", b"a=b"), *more.get("headers", [])],
            "client": more.get("client"),
        }
        for piece in pieces:
            self.coming.put_nowait({"type": "http.request", "body": piece, "more_body": True})
        self.coming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        await self.form(scope, self.coming.get, self._send)
        return self.sent[0]["status"] if self.sent else None

    def leave(self) -> None:
        self.coming.put_nowait({"type": "http.disconnect"})

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


def proxy_of(
    answering: Answering, deadline_s: float = WAIT_S, room_bytes: int = 1_000
) -> tuple[Stub, Metrics, Proxy]:
    stub, metrics = Stub(answering), Metrics(CollectorRegistry())
    service = CheckService(cast(Decider, stub), SystemClock(), metrics, deadline_s)
    return stub, metrics, Proxy(HttpForm(service, 100, room_bytes))


async def allowing(_: AuthRequest) -> Decision:
    return ALLOW


def counted(metrics: Metrics, outcome: str, code: str) -> float | None:
    labels = {"outcome": outcome, "code": code}
    return metrics.registry.get_sample_value("tollkeeper_authz_decisions_total", labels)


async def test_the_decision_sees_what_the_client_sent() -> None:
    stub, metrics, proxy = proxy_of(allowing)
    headers = [(b"x-api-key", b"k1"), (b"x-api-key", b"k2"), (b"x-other", b"no")]
    assert await proxy.ask("/envoy/v1/x%2Fy", "q=1", b'{"a"', b":1}", headers=headers) == 200
    (seen,) = stub.asked
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/x%2Fy?q=1", b'{"a":1}')
    assert seen.headers == (("x-api-key", "k1"), ("x-api-key", "k2"))
    assert (seen.peer, seen.shows_body) == (application.LOCAL_PEER, True)
    assert counted(metrics, "allow", "ok") == 1


async def test_of_a_long_body_no_more_is_kept_than_shows_that_it_is_long() -> None:
    stub, _, proxy = proxy_of(allowing)
    await proxy.ask("/envoy/v1/x", "", *[b"x" * 60] * 50)
    assert len(stub.asked[0].body) == 101


async def test_bodies_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()

    async def waiting(_: AuthRequest) -> Decision:
        await released.wait()
        return ALLOW

    stub, metrics, first = proxy_of(waiting, room_bytes=100)
    second, third = Proxy(first.form), Proxy(first.form)
    asking = asyncio.create_task(first.ask("/envoy/v1/x", "", b"x" * 60))
    await until(lambda: stub.asked, "it is decided about")
    assert await second.ask("/envoy/v1/x", "", b"x" * 60) == 503
    assert counted(metrics, "outage", "unavailable") == 1
    released.set()
    assert (await asking, await third.ask("/envoy/v1/x", "", b"x" * 60)) == (200, 200)
    monkeypatch.setattr(application, "BODY_TIMEOUT_S", 0.01)
    slow = Proxy(first.form)
    slow.coming = cast("asyncio.Queue[Any]", Silent())
    assert await slow.ask() == 503


class Silent:
    """A connection on which nothing comes."""

    def put_nowait(self, _: object) -> None:
        """Lose it."""

    async def get(self) -> Any:
        await asyncio.Event().wait()


async def test_forward_auth_names_the_request_and_shows_no_body() -> None:
    stub, _, proxy = proxy_of(allowing)
    headers = [
        (b"x-forwarded-method", b"GET"),
        (b"x-forwarded-uri", b"/a?b"),
        (b"x-original-uri", b"/c"),
    ]
    client = ("192.0.2.1", 5)
    await proxy.ask("/forward", "metering=off", b"ignored", headers=headers, client=client)
    (seen,) = stub.asked
    assert (seen.method, seen.path, seen.body) == ("GET", "/a?b", b"")
    assert (seen.peer, seen.shows_body) == ("192.0.2.1", False)


async def test_who_leaves_during_the_decision_cancels_it() -> None:
    async def forever(_: AuthRequest) -> Decision:
        await asyncio.Event().wait()
        raise AssertionError

    stub, metrics, proxy = proxy_of(forever)
    asking = asyncio.create_task(proxy.ask())
    await until(lambda: stub.asked, "it is decided about")
    proxy.leave()
    assert await asyncio.wait_for(asking, WAIT_S) is None
    assert stub.cancelled == 1
    assert metrics.registry.get_sample_value("tollkeeper_authz_checks_in_flight") == 0


async def test_who_left_when_the_decision_came_gets_none_and_keeps_no_hold() -> None:
    async def leaving(_: AuthRequest) -> Decision:
        proxy.leave()
        return ALLOW

    stub, _, proxy = proxy_of(leaving)
    assert await proxy.ask() is None
    assert stub.taken_back == [HOLD]


async def test_who_leaves_while_sending_is_not_decided_about() -> None:
    stub, _, proxy = proxy_of(allowing)
    proxy.coming.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
    proxy.leave()
    assert await proxy.ask() is None
    assert not stub.asked


async def test_outages_faults_and_lateness_are_503_and_counted_once() -> None:
    async def away(_: AuthRequest) -> Decision:
        raise StoreUnavailable("away")

    async def broken(_: AuthRequest) -> Decision:
        raise KeyError("sk-or-planted")

    async def late(_: AuthRequest) -> Decision:
        await asyncio.sleep(WAIT_S)
        return ALLOW

    for answering, code in ((away, "unavailable"), (broken, "fault"), (late, "unavailable")):
        _, metrics, proxy = proxy_of(answering, deadline_s=0.05)
        assert await proxy.ask() == 503
        assert counted(metrics, "outage", code) == 1
        assert b"planted" not in str(proxy.sent).encode()


async def test_both_transports_refuse_in_the_shape_of_the_path() -> None:
    async def refusing(_: AuthRequest) -> Decision:
        return deny(Reason.INSUFFICIENT_CREDITS)

    async def away(_: AuthRequest) -> Decision:
        raise StoreUnavailable("away")

    for answering, kind in ((refusing, "billing_error"), (away, "api_error")):
        stub, metrics, proxy = proxy_of(answering)
        await proxy.ask("/envoy/v1/messages", "beta=true")
        bodies = [proxy.sent[1]["body"]]
        check = CheckRequest()
        http = check.attributes.request.http
        http.method, http.path = "POST", "/v1/messages?beta=true"
        service = CheckService(cast(Decider, stub), SystemClock(), metrics, WAIT_S)
        answer = await service.check(check.SerializeToString())
        told = CheckResponse.FromString(answer.payload)
        bodies.append((told.denied_response.body or told.error_response.body).encode())
        for body in bodies:
            error = json.loads(body)
            assert (error["type"], error["error"]["type"]) == ("error", kind)
