"""The border of the meter API: who may pass, what errors look like, what an outage does."""

import json
import re
from typing import Any

import asyncpg
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meter.api.services import Readiness
from meter.identity.operator_store import OperatorStore
from meter.postgres.pool import open_pool
from meter.sealing import SecretText
from tests.books import Books
from tests.meter_api import ADMIN, OPERATOR_TOKEN, MeterApi, admit_operator, meter_api
from tests.paths import ROOT

# An id of each parameter of a path that is not found by a text.
IDS = {"doubt_id": "0190a4c2-0000-7000-8000-000000000000", "position": "1"}


# Each route of the administrators' part, with an id in place of each parameter.
ADMIN_ROUTES = [
    (method.upper(), re.sub(r"{(\w+)}", lambda name: IDS.get(name[1], "a" * 16), path))
    for path, operations in json.loads((ROOT / "openapi.json").read_text())["paths"].items()
    if path.startswith(f"{ADMIN}/")
    for method in operations
]


def assert_problem(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"urn:tollkeeper:problem:{code}"
    assert problem["title"]
    assert problem["detail"]


async def test_only_the_operator_token_opens_the_administrators_part(api: MeterApi) -> None:
    key = (await api.key(await api.user("ada")))["key"]
    presented = [
        {},
        {"Authorization": f"Bearer {OPERATOR_TOKEN}x"},
        {"Authorization": f"Basic {OPERATOR_TOKEN}"},
        {"Authorization": OPERATOR_TOKEN},
        {"x-api-key": OPERATOR_TOKEN},
    ]
    assert len(ADMIN_ROUTES) > 100
    for method, path in ADMIN_ROUTES:
        for headers in presented:
            answer = await api.anybody.request(method, path, headers=headers)
            assert_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == 'Bearer realm="tollkeeper"'
        two = {"Authorization": f"Bearer {OPERATOR_TOKEN}", "x-api-key": key}
        answer = await api.anybody.request(method, path, headers=two)
        assert_problem(answer, 400, "conflicting_credentials")
        answer = await api.as_key(key, path, method=method)
        assert_problem(answer, 403, "insufficient_scope")
        scope = "admin:read" if method == "GET" else "admin:write"
        challenge = f'Bearer realm="tollkeeper", error="insufficient_scope", scope="{scope}"'
        assert answer.headers["www-authenticate"] == challenge


async def test_a_new_operator_token_replaces_the_old_one_at_once(api: MeterApi) -> None:
    assert (await api.operator.get(f"{ADMIN}/plans")).status_code == 200
    await OperatorStore(api.pool).admit("operator", SecretText("another-token"))
    assert (await api.operator.get(f"{ADMIN}/plans")).status_code == 401
    stored = await api.pool.fetch("SELECT * FROM operators")
    assert "another-token" not in repr([dict(row) for row in stored])


async def test_unknown_routes_and_methods_are_problems(api: MeterApi) -> None:
    assert_problem(await api.anybody.get("/nowhere"), 404, "route_not_found")
    assert_problem(await api.anybody.get("/api/v1/admin/nowhere"), 404, "route_not_found")
    assert_problem(await api.anybody.get(f"{ADMIN}/users/"), 404, "route_not_found")
    refused = await api.operator.delete(f"{ADMIN}/users")
    assert_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET, HEAD, POST"


async def test_bodies_that_cannot_be_read_are_problems(api: MeterApi) -> None:
    def sent(content: bytes, media_type: str = "application/json") -> Any:
        return api.operator.post(
            f"{ADMIN}/users", content=content, headers={"Content-Type": media_type}
        )

    assert_problem(await sent(b"{"), 400, "invalid_json")
    assert (await sent(b"[" * 100_000)).status_code == 400
    assert (await sent(b'{"email": "\xff"}')).status_code == 400
    assert (await sent(b'{"markup_bps": ' + b"9" * 5000 + b"}")).status_code in (400, 422)
    for body in (b"", b"null", b"[]", b'"x"', b'{"email": "\\ud800@x"}', b'{"\\ud800": 1}'):
        assert (await sent(body)).status_code == 422, body
    good = b'{"email": "a@b.example"}'
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert_problem(await sent(good, media_type), 415, "unsupported_media_type")
    assert (await sent(good, "application/json; charset=utf-8")).status_code == 201


@pytest.mark.parametrize(
    "path",
    [
        *(f"{ADMIN}/audit-log?{name}=" for name in ("user", "actor", "action")),
        f"{ADMIN}/users/ada/passes?credential=",
        f"{ADMIN}/users/ada/api-keys?tag=",
        f"{ADMIN}/users/ada/api-keys?tag=a%3D",
    ],
)
async def test_what_postgres_cannot_hold_is_no_fault_of_the_meter(api: MeterApi, path: str) -> None:
    await api.user("ada")
    assert (await api.operator.get(f"{path}a")).status_code == 200
    assert_problem(await api.operator.get(f"{path}%00"), 422, "invalid_request")


async def test_a_body_over_one_mebibyte_is_refused(api: MeterApi) -> None:
    body = json.dumps({"email": "a@b.example", "name": "x" * 1024 * 1024}).encode()
    headers = {"Content-Type": "application/json"}
    answer = await api.operator.post(f"{ADMIN}/users", content=body, headers=headers)
    assert_problem(answer, 413, "request_too_large")

    async def chunks() -> Any:
        for _ in range(40):
            yield b"x" * 65536

    answer = await api.operator.post(f"{ADMIN}/users", content=chunks(), headers=headers)
    assert_problem(answer, 413, "request_too_large")


async def test_secrets_are_in_no_list_no_error_and_no_log(
    api: MeterApi, capsys: pytest.CaptureFixture[str]
) -> None:
    await api.user("ada")
    key = await api.key("ada")
    provider_key = "sk-or-v1-planted-provider-secret-0123456789"
    path = f"{ADMIN}/providers/openrouter/key"
    assert (
        await api.operator.put(path, json={"key": provider_key, "force": True})
    ).status_code == 204
    stored = await api.keys.find_key("openrouter", "system")
    assert stored is not None
    assert stored.plain.reveal() == provider_key
    (provider,) = (await api.operator.get(f"{ADMIN}/providers")).json()["data"]
    assert (provider["name"], provider["key"]["key_version"]) == ("openrouter", 1)
    assert provider["key"]["hint"] == "...6789"
    as_json = {"Content-Type": "application/json"}
    answers = [
        await api.operator.put(path, json={"key": provider_key + " \n"}),
        await api.operator.put(path, json={"key": [provider_key]}),
        await api.operator.put(path, json={"key": provider_key, "token": provider_key}),
        await api.operator.put(path, content=b'{"key": "' + provider_key.encode(), headers=as_json),
        await api.operator.put(f"{ADMIN}/providers/other/key", json={"key": provider_key}),
        await api.operator.get(f"{ADMIN}/providers"),
        await api.operator.get(f"{ADMIN}/users"),
        await api.operator.get(f"{ADMIN}/users/ada/api-keys"),
        await api.anybody.get("/api/v1/keys", headers={"x-api-key": key["key"]}),
        await api.anybody.get("/api/v1/keys", headers={"x-api-key": key["key"][:-1]}),
        await api.anybody.get("/metrics"),
    ]
    assert [answer.status_code for answer in answers[:5]] == [422, 422, 422, 400, 404]
    logged = capsys.readouterr()
    everything = "\n".join([*(answer.text for answer in answers), logged.out, logged.err])
    for secret in (provider_key, key["key"], key["key"][-49:], OPERATOR_TOKEN):
        assert secret not in everything


async def test_an_outage_is_503_and_says_when_to_try_again(books: Books) -> None:
    away = await open_pool("postgresql://nobody@/nothing?host=/nonexistent", 2)
    async with meter_api(away) as api:
        for path in (f"{ADMIN}/users", f"{ADMIN}/ledger/verification"):
            answer = await api.operator.get(path)
            assert_problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
        listed = await api.anybody.get("/v1/models")
        assert (listed.status_code, listed.headers["retry-after"]) == (503, "1")
        assert listed.json()["error"]["type"] == "service_unavailable"
        assert (await api.anybody.get("/healthz")).status_code == 200
        ready = await api.anybody.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["components"]["postgres"]["status"] == "unready"


async def test_readiness_names_its_components(books: Books) -> None:
    async def lagging() -> Readiness:
        return Readiness(is_ready=False, reason="not yet", is_required=False)

    async def broken() -> Readiness:
        raise RuntimeError("secret detail")

    async with meter_api(books.pool, readiness={"catalogue": lagging}) as api:
        ready = await api.anybody.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["status"] == "ready"
        assert ready.json()["components"] == {
            "postgres": {"status": "ready", "reason": None, "required": True},
            "catalogue": {"status": "unready", "reason": "not yet", "required": False},
        }
    async with meter_api(books.pool, readiness={"broken": broken}) as api:
        ready = await api.anybody.get("/readyz")
        assert ready.status_code == 503
        assert "secret detail" not in ready.text


async def test_the_pages_ask_nobody_else(api: MeterApi) -> None:
    page = await api.anybody.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("</", "")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 3
    for path in named:
        assert (await api.anybody.get(path)).status_code == 200
    # Swagger UI reads OpenAPI 3.1 from version 5 on.
    bundle = (await api.anybody.get("/docs/swagger-ui-bundle.js")).text
    versions = re.findall(r'PACKAGE_VERSION:"(\d+)\.', bundle)
    assert versions
    assert int(versions[0]) >= 5


async def test_a_fault_is_500_without_its_reason(
    api: MeterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("planted-detail")

    monkeypatch.setattr("meter.plans.plan_store.PlanStore.list_all", fail)
    answer = await api.operator.get(f"{ADMIN}/plans")
    assert_problem(answer, 500, "internal_error")
    assert "planted-detail" not in answer.text


async def test_requests_are_counted_by_route_template(api: MeterApi) -> None:
    await api.user("ada")
    await api.operator.get(f"{ADMIN}/users/ada")
    await api.operator.get(f"{ADMIN}/users/nobody")
    await api.anybody.get("/some/where")
    text = (await api.anybody.get("/metrics")).text
    route = f'route="{ADMIN}/users/{{user_id}}"'
    assert f'tollkeeper_api_requests_total{{method="GET",{route},status="200"}} 1.0' in text
    assert f'tollkeeper_api_requests_total{{method="GET",{route},status="404"}} 1.0' in text
    assert 'route="unmatched",status="404"' in text
    assert "some" not in text
    assert "nobody" not in text


async def test_answers_with_money_or_keys_are_not_kept(api: MeterApi) -> None:
    answer = await api.operator.get(f"{ADMIN}/users")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.headers["x-request-id"]) == 32


async def test_the_service_role_cannot_rewrite_history(api: MeterApi) -> None:
    await api.user("ada", "1.00")
    for statement in ("UPDATE entry_rows SET amount_picos = 1", "DELETE FROM settlements"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await api.pool.execute(statement)


_TEXT = st.text(max_size=30)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_BODIES = st.dictionaries(
    st.sampled_from(["email", "name", "id", "plan", "markup_bps", "amount", "reason", "key"])
    | _TEXT,
    _JSON,
    max_size=5,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    route=st.sampled_from(
        [route for route in ADMIN_ROUTES if route[0] in ("POST", "PATCH", "PUT")]
    ),
    body=_BODIES | _JSON,
    params=st.dictionaries(st.sampled_from(["cursor", "limit", "email"]) | _TEXT, _TEXT),
)
def test_nothing_that_is_sent_breaks_the_meter(
    hostile: "Hostile", route: tuple[str, str], body: Any, params: dict[str, str]
) -> None:
    method, path = route
    answer = hostile.ask(method, path, body, {})
    assert answer.status_code < 500, answer.text
    answer = hostile.ask("GET", ADMIN + "/users", None, params)
    assert answer.status_code < 500, answer.text


class Hostile:
    """Asks from outside an event loop, because hypothesis runs plain functions."""

    def __init__(self, runner: Any, api: MeterApi) -> None:
        self._runner = runner
        self._api = api

    def ask(self, method: str, path: str, body: Any, params: dict[str, str]) -> httpx2.Response:
        async def send() -> httpx2.Response:
            return await self._api.operator.request(
                method,
                path,
                content=None if body is None else json.dumps(body).encode(),
                params=params,
                headers={"Idempotency-Key": "k", "Content-Type": "application/json"},
            )

        answer: httpx2.Response = self._runner.run(send())
        return answer


@pytest.fixture
def hostile(database: Any) -> Any:
    """The API in an event loop that outlives one example."""
    import asyncio

    with asyncio.Runner() as runner:

        async def begin() -> Any:
            pool = await open_pool(database.service_dsn, 2)
            await admit_operator(pool)
            context = meter_api(pool)
            return pool, context, await context.__aenter__()

        pool, context, api = runner.run(begin())
        yield Hostile(runner, api)

        async def end() -> None:
            await context.__aexit__(None, None, None)
            await pool.close()

        runner.run(end())
