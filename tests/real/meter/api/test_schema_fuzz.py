"""Requests that fit the OpenAPI document are never refused as invalid, and replies fit it too.

Cases come from the document alone. TOLLKEEPER_FUZZ_EXAMPLES sets the number of cases for each
operation; the same number gives the same cases.
"""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from meter.errors import IssuerUnavailable
from meter.jwts.fetching import IssuerDocuments
from meter.postgres.pool import open_pool
from tests.meter_api import ADMIN, MeterApi, admit_operator, meter_api
from tests.paths import ROOT
from tests.servers import Database

EXAMPLES = int(os.environ.get("TOLLKEEPER_FUZZ_EXAMPLES", "8"))
ALL_SCOPES = ["inference", "models:read", "usage:read", "keys:write"]


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

    def send(self, request: dict[str, Any], headers: Mapping[str, str]) -> httpx2.Response:
        """Send a request with these credentials, or with the operator's."""
        if request["url"].startswith(ADMIN):
            return self.runner.run(self.api.operator.request(**request))
        own = {**request["headers"], **headers}
        return self.runner.run(self.api.anybody.request(**{**request, "headers": own}))


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


# The document in the repository is the one that the meter serves: a test of the contract says so.
TAGS = sorted(
    {
        tag
        for operations in json.loads((ROOT / "openapi.json").read_text())["paths"].values()
        for operation in operations.values()
        for tag in operation["tags"]
    }
)


@pytest.mark.parametrize("tag", TAGS)
def test_requests_that_fit_the_document_are_accepted(fuzzed: Fuzzed, tag: str) -> None:
    from tests.real.meter.api.schema_cases import OPERATIONS, fuzz

    chosen = [one for one in OPERATIONS if tag in (one.tags or ())]
    # Envoy serves inference.
    assert chosen or tag == "Inference"
    for number, operation in enumerate(chosen):
        made, headers = fuzzed.prepare(f"user{number}")
        named = {one.name for one in operation.path_parameters}
        ids = {name: value for name, value in made.items() if name in named}
        send = partial(fuzzed.send, headers=headers)
        fuzz(operation, ids, EXAMPLES, send)
        if ids:
            # Ids that fit the document, but that nobody has.
            fuzz(operation, {}, max(1, EXAMPLES // 4), send)
