"""POST /explain: what it takes, what it refuses, and that a browser's page cannot ask."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from authz.explain.explanation import (
    ClientAnswer,
    Explanation,
    Outcome,
    PhaseReport,
    Verdict,
)
from authz.explain.requests import NotARequest, read_request
from authz.health import HealthServer
from authz.request import AuthRequest
from authz.trace import Phase

ANSWER = ClientAnswer(401, "invalid_api_key", "no", [("retry-after", "1")])


def test_reads_a_request_as_envoy_passes_it_on() -> None:
    found = read_request(
        {
            "path": "/v1/completions?x",
            "headers": [["Authorization", "Bearer \u00e9"], ["Accept", "*/*"], ["X-API-Key", "k"]],
            "body_base64": base64.b64encode(b"{}").decode(),
            "extensions": {"scope": "usage:read"},
        }
    )
    headers = (("authorization", "Bearer \u00c3\u00a9"), ("x-api-key", "k"))
    assert found == AuthRequest(
        "POST", "/v1/completions?x", headers, b"{}", "127.0.0.1", "", {"scope": "usage:read"}
    )


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "a JSON object"),
        ({"body": "x"}, "unknown members: body"),
        ({"method": 1}, "method must be"),
        ({"headers": {"a": "b"}}, "headers must be"),
        ({"headers": [["a"]]}, "headers must be"),
        ({"headers": [["a", 1]]}, "headers must be"),
        ({"body_base64": "*"}, "body_base64 must be"),
        ({"extensions": {"scope": True}}, "extensions must be"),
    ],
)
def test_says_what_is_no_request(document: object, said: str) -> None:
    with pytest.raises(NotARequest, match=said):
        read_request(document)


class Oracle:
    """Refuses everything, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[AuthRequest] = []

    async def explain(self, request: AuthRequest) -> Explanation:
        self.asked.append(request)
        report = PhaseReport(Phase.AUTHENTICATE, Outcome.REFUSED, "it was revoked")
        return Explanation(Verdict.REFUSE, "tk-abc", [report], ANSWER, ["it will fail"])


async def nothing() -> dict[str, Any]:
    return {}


@pytest.fixture
async def asker(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    server = HealthServer(nothing, CollectorRegistry(), Oracle().explain)
    await server.start(f"unix:{tmp_path}/h.sock")
    connector = aiohttp.UnixConnector(str(tmp_path / "h.sock"))
    async with aiohttp.ClientSession("http://authz", connector=connector) as session:
        yield session
    await server.stop()


async def test_answers_with_phases(asker: aiohttp.ClientSession) -> None:
    async with asker.post("/explain", json={"path": "/"}) as answer:
        assert await answer.json() == {
            "verdict": "refuse",
            "credential": "tk-abc",
            "phases": [
                {"phase": 2, "name": "authenticate", "outcome": "refused", "says": "it was revoked"}
            ],
            "answer": {
                "status": 401,
                "code": "invalid_api_key",
                "message": "no",
                "headers": {"retry-after": "1"},
            },
            "warnings": ["it will fail"],
        }


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("application/x-www-form-urlencoded", b"{}", 415),
        ("application/json", b"{", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b"[" * 100_000, 400),
        ("application/json", b'{"body": 1}', 400),
    ],
)
async def test_refuses_what_is_no_question(
    asker: aiohttp.ClientSession, content_type: str, body: bytes, status: int
) -> None:
    sent = asker.post("/explain", data=body, headers={"content-type": content_type})
    async with sent as answer:
        assert answer.status == status


async def test_is_not_there_where_nobody_explains(tmp_path: Path) -> None:
    server = HealthServer(nothing, CollectorRegistry())
    await server.start(f"unix:{tmp_path}/h.sock")
    connector = aiohttp.UnixConnector(str(tmp_path / "h.sock"))
    async with (
        aiohttp.ClientSession("http://authz", connector=connector) as session,
        session.post("/explain", json={}) as answer,
    ):
        assert answer.status == 404
    await server.stop()
