"""Requests that fit the OpenAPI document are never refused as invalid, and replies fit it too.

Cases come from the document alone. TOLLKEEPER_FUZZ_EXAMPLES sets the number of cases for each
operation; the same number gives the same cases.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast

import httpx2
import pytest
import schemathesis
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from meter.api.app import openapi_document
from meter.errors import IssuerUnavailable
from meter.jwts.fetching import IssuerDocuments
from meter.postgres.pool import open_pool
from tests.meter_api import ADMIN, MeterApi, admit_operator, meter_api
from tests.servers import Database

EXAMPLES = int(os.environ.get("TOLLKEEPER_FUZZ_EXAMPLES", "8"))
# The codes for a request that does not fit its description.
INVALID = {"invalid_request", "invalid_json", "invalid_amount", "unsupported_media_type"}
ALL_SCOPES = ["inference", "models:read", "usage:read", "keys:write"]
Case: TypeAlias = "schemathesis.Case[Any]"
NOW = datetime.now(UTC).replace(microsecond=0)

# The formats that a schema names but cannot define.
schemathesis.openapi.format(
    "date-time",
    st.integers(3600, 3_000 * 86_400).map(
        lambda later_s: f"{NOW + timedelta(seconds=later_s):%Y-%m-%dT%H:%M:%SZ}"
    ),
)
schemathesis.openapi.format(
    "date", st.dates(datetime(2000, 1, 1).date(), datetime(2999, 12, 31).date()).map(str)
)
schemathesis.openapi.format(
    "network", st.ip_addresses(v=4).map(str) | st.sampled_from(["10.0.0.0/8", "2001:db8::/32"])
)
schemathesis.openapi.format(
    "printable", st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1)
)


class SilentIssuers(IssuerDocuments):
    """No issuer answers, and no test asks the network."""

    async def fetch_object(self, url: str) -> Mapping[str, Any]:
        raise IssuerUnavailable(f"{url} does not answer in this test")


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """The API, and an event loop that outlives an example, because hypothesis runs functions."""

    runner: asyncio.Runner
    api: MeterApi

    def prepare(self, name: str) -> tuple[dict[str, str], dict[str, str]]:
        """Make a user with one of everything: the ids by path parameter, and the user's headers."""
        return self.runner.run(self._prepare(name))

    async def _prepare(self, name: str) -> tuple[dict[str, str], dict[str, str]]:
        user = await self.api.user(name, "100.00")
        caller = await self.api.key(user, scopes=ALL_SCOPES)
        other = await self.api.key(user, scopes=ALL_SCOPES, budgets={"day": "5.00"})
        made = {
            "user_id": user,
            "key_id": other["id"],
            "provider": "openrouter",
            "plan_id": "standard",
            "rule_id": name,
            "issuer_id": name,
        }
        admin = self.api.operator
        issuer = {"url": f"https://{name}.example", "terms": {"audiences": ["tollkeeper"]}}
        rule = {"applies_to": "user", "applies_id": user, "requests_per_minute": 1000}
        made_pass = (await admin.post(f"{ADMIN}/users/{user}/passes", json={})).json()
        await admin.put(f"{ADMIN}/issuers/{name}", json=issuer)
        await admin.put(f"{ADMIN}/limits/{name}", json=rule)
        identity = (
            await admin.put(f"{ADMIN}/users/{user}/identities", json={"certificate": name})
        ).json()
        kid = (await admin.get(f"{ADMIN}/signing-keys")).json()["data"][0]["kid"]
        made |= {"jti": made_pass["jti"], "identity_id": identity["id"], "kid": kid}
        return made, {"Authorization": f"Bearer {caller['key']}"}

    def send(self, case: Case, headers: Mapping[str, str]) -> httpx2.Response:
        """Send a case with these credentials."""
        is_admin = case.path.startswith(ADMIN)
        client = self.api.operator if is_admin else self.api.anybody
        body: dict[str, Any] = {} if case.body is NOT_SET else {"json": case.body}
        return self.runner.run(
            client.request(
                case.method,
                case.formatted_path,
                params=case.query,
                headers={**dict(case.headers), **({} if is_admin else headers)},
                **body,
            )
        )


@pytest.fixture
def fuzzed(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fuzzed]:
    monkeypatch.setattr("meter.api.public.key_reports.ANSWER_AFTER_S", 0.0)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def begin() -> MeterApi:
            pool = await open_pool(database.service_dsn, 2)
            stack.push_async_callback(pool.close)
            await admit_operator(pool)
            provider = web.Application()
            provider.add_routes([web.get("/api/v1/key", _accept_key)])
            server = await stack.enter_async_context(TestServer(provider))
            url = str(server.make_url("/api/v1"))
            return await stack.enter_async_context(
                meter_api(pool, documents=SilentIssuers(), provider_url=url)
            )

        yield Fuzzed(runner, runner.run(begin()))
        runner.run(stack.aclose())


async def _accept_key(_: web.Request) -> web.Response:
    return web.json_response({"data": {"usage": 0, "limit_remaining": None}})


def _document() -> dict[str, Any]:
    """The document without the routes that Envoy serves, and without cursors, which are signed."""
    document = openapi_document()
    for path in [path for path in document["paths"] if "Inference" in str(document["paths"][path])]:
        if path.endswith(("completions", "embeddings")):
            del document["paths"][path]
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["parameters"] = [
                one for one in operation.get("parameters", ()) if one["name"] != "cursor"
            ]
    return document


SCHEMA = schemathesis.openapi.from_dict(
    _document(),
    config=schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}}),
)
OPERATIONS: list[Any] = [cast(Any, one).ok() for one in SCHEMA.get_all_operations()]
TAGS = sorted({tag for operation in OPERATIONS for tag in operation.tags or ()})


def _judge(case: Case, answer: httpx2.Response) -> None:
    assert answer.status_code < 500, answer.text
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    case.validate_response(answer, checks=checks)
    if answer.status_code < 400:
        return
    error = answer.json()
    code = error["code"] if "code" in error else error["error"]["code"]
    assert code not in INVALID, answer.text
    described = case.operation.definition.raw["responses"][str(answer.status_code)]["description"]
    assert f"`{code}`" in described, f"{code} is not documented: {described}"


def _fuzz(
    fuzzed: Fuzzed,
    operation: Any,
    path_parameters: Mapping[str, str],
    headers: Mapping[str, str],
    examples: int,
) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(path_parameters=dict(path_parameters)))
    def ask(case: Case) -> None:
        _judge(case, fuzzed.send(case, headers))

    ask()


@pytest.mark.parametrize("tag", TAGS)
def test_requests_that_fit_the_document_are_accepted(fuzzed: Fuzzed, tag: str) -> None:
    for number, operation in enumerate(one for one in OPERATIONS if tag in (one.tags or ())):
        made, headers = fuzzed.prepare(f"user{number}")
        named = {one.name for one in operation.path_parameters}
        ids = {name: value for name, value in made.items() if name in named}
        _fuzz(fuzzed, operation, ids, headers, EXAMPLES)
        if ids:
            # Ids that fit the document, but that nobody has.
            _fuzz(fuzzed, operation, {}, headers, max(1, EXAMPLES // 4))
