"""More providers, by API: exact bills, own keys, aliases, fallback, nothing dropped meanwhile."""

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from chaos.failover.providers import Fleet, SimulatedProvider, running_fleet
from tests.e2e.admin import Admin, Customer, chat
from tests.e2e.crowd import Request, send_all
from tests.e2e.raw_http import Reply, send_json
from tests.e2e.running_stack import RunningStack, wait_until
from tests.servers import run_in_thread

PICOS = 10**12
# Models that no other test asks, so that their routes disturb nobody.
DIRECT = {
    "openai": ("sk-house-0123456789", "openai/gpt-4.1-nano"),
    "anthropic": ("sk-ant-house-0123456789", "anthropic/claude-3-haiku"),
    "google": ("AIzaHouse-0123456789", "google/gemini-2.5-flash-lite"),
    "openai_compatible": ("house-0123456789", "direct-openai_compatible/Qwen/Qwen3-8B"),
}
QWEN_USD = {"prompt_usd_per_million": "0.05", "completion_usd_per_million": "0.2"}
FALLBACK_MODEL = "openai/gpt-3.5-turbo"
# Long enough for half of it to be read from the cache, where there is one.
MESSAGES: list[Any] = [{"role": "user", "content": "Tell me about tolls and bridges. " * 30}]


@dataclass(slots=True)
class Books:
    """Looks at the bills of providers and at the usage of customers, as decimals."""

    admin: Admin

    def bill(self, path: Path) -> dict[str, dict[str, Any]]:
        """The rows of a provider's bill by generation."""
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {row["generation_id"]: row for row in rows}

    def costs(self, *customers: Customer) -> dict[str, Decimal]:
        """The cost of each settled generation, in US dollars."""
        self.admin.wait_settled(*customers)
        return {name: Decimal(cost) for name, cost in self.admin.usage(*customers).items()}


@pytest.fixture
def books(admin: Admin) -> Books:
    return Books(admin)


class Direct:
    """The providers of a stack's simulator, made with their keys when they are first needed."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        self.admin = Admin(stack)
        self._made: list[str] = []

    def bill_path(self, dialect: str) -> Path:
        return self.stack.home / "simulator" / f"{dialect}.jsonl"

    def control(self, dialect: str, method: str, path: str, content: object = None) -> Reply:
        base = self.stack.endpoints[f"simulator/{dialect}"]
        origin = base.removesuffix("/openai").removesuffix("/v1beta").removesuffix("/v1")
        reply = send_json(origin, method, f"/control/{path}", content)
        assert reply.status in (200, 201, 204), reply.body
        return reply

    def last_body(self, dialect: str) -> dict[str, Any]:
        """The body of the last request that the provider received."""
        (last,) = self.control(dialect, "GET", "requests?limit=1").json()["requests"]
        found: dict[str, Any] = json.loads(base64.b64decode(last["body_base64"]))
        return found

    def make(self, dialect: str) -> str:
        """Create the provider of a dialect and route its model to it; return the model."""
        key, model = DIRECT[dialect]
        if dialect in self._made:
            return model
        name = f"direct-{dialect}"
        base_url = self.stack.endpoints[f"simulator/{dialect}"]
        make_provider(self.admin, name, dialect, base_url, key)
        if dialect == "openai_compatible":
            prices = {"prices": [{"model": model, **QWEN_USD}]}
            self.admin.call("POST", f"providers/{name}/prices", prices)
        else:
            # OpenRouter has these models too.
            put_route(self.admin, f"to-{dialect}", model, [name])
        self._made.append(dialect)
        wait_served(self.admin, model, self.bill_path(dialect))
        return model

    def remove(self) -> None:
        for dialect in self._made:
            if dialect != "openai_compatible":
                self.admin.call("DELETE", f"routes/to-{dialect}")
            self.admin.call("DELETE", f"providers/direct-{dialect}")


def make_provider(admin: Admin, name: str, dialect: str, base_url: str, key: str) -> None:
    """One call to create it, one for its key."""
    terms = {"name": name, "dialect": dialect, "base_url": base_url}
    admin.call("POST", "providers", terms)
    admin.call("PUT", f"providers/{name}/key", {"key": key})


def put_route(admin: Admin, route: str, model: str, providers: list[str]) -> None:
    """Set a route, as soon as its providers are known to offer the model."""
    bearer = [("Authorization", f"Bearer {admin.stack.operator_token}")]
    asked = [
        {"provider": name, "priority": place, "weight": 1} for place, name in enumerate(providers)
    ]
    content = {"pattern": model, "providers": asked, "position": 1}
    path = f"/api/v1/admin/routes/{route}"
    told: list[Reply] = []

    def is_set() -> bool:
        told.append(send_json(admin.stack.api, "PUT", path, content, bearer))
        return told[-1].status in (200, 201)

    try:
        wait_until(is_set, f"the route {route} is set")
    except TimeoutError as error:
        raise AssertionError(told[-1].body) from error


def wait_served(admin: Admin, model: str, bill: Path) -> None:
    """Until a request for the model is on this bill."""
    probe = admin.open_account()
    before = bill.read_text().count("\n")

    def is_served() -> bool:
        admin.ask(probe, model=model)
        return bill.read_text().count("\n") > before

    wait_until(is_served, f"{model} is served by the provider of {bill.name}")
    admin.wait_settled(probe)


@pytest.fixture(scope="module")
def direct(stack: RunningStack) -> Iterator[Direct]:
    """The providers of the simulator of the shared stack, which has none of them afterwards."""
    made = Direct(stack)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def fleet(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two providers of one model, the second at twice the price, asked in turn."""
    admin = Admin(stack)
    with running_fleet(tmp_path_factory.mktemp("fleet"), ("openai", "openai-2")) as fleet:
        for factor, provider in enumerate(fleet.providers, start=1):
            make_provider(admin, name_of(provider), "openai", provider.base_url, key_of(provider))
            price = {
                "prompt_usd_per_million": f"{Decimal('0.5') * factor}",
                "completion_usd_per_million": f"{Decimal('1.5') * factor}",
            }
            prices = {"prices": [{"model": FALLBACK_MODEL, **price}]}
            admin.call("POST", f"providers/{name_of(provider)}/prices", prices)
        behave(fleet)
        put_route(admin, "in-turn", FALLBACK_MODEL, [name_of(one) for one in fleet.providers])
        wait_served(admin, FALLBACK_MODEL, fleet.providers[0].bill_path)
        yield fleet
        admin.call("DELETE", "routes/in-turn")
        for provider in fleet.providers:
            admin.call("DELETE", f"providers/{name_of(provider)}")


def name_of(provider: SimulatedProvider) -> str:
    return f"turn-{provider.name}"


def key_of(provider: SimulatedProvider) -> str:
    return f"sk-{provider.name}-0123456789"


def behave(fleet: Fleet, **first: Any) -> None:
    """Let the first provider behave so, and the second one be twice as dear as listed."""
    for factor, provider in enumerate(fleet.providers, start=1):
        behaviour = {"price_factor": factor, **(first if factor == 1 else {})}
        assert send_json(provider.origin, "DELETE", "/control/behaviours").status == 204
        told = send_json(provider.origin, "POST", "/control/behaviours", behaviour)
        assert told.status == 201, told.body


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.mark.parametrize("dialect", sorted(DIRECT))
def test_a_provider_added_by_api_is_billed_exactly(
    dialect: str, direct: Direct, admin: Admin, books: Books
) -> None:
    model = direct.make(dialect)
    customer = admin.open_account(markup_bps=333)
    with openai.OpenAI(
        api_key=customer.key, base_url=f"{admin.stack.gateway}/v1", max_retries=0
    ) as client:
        for number in range(3):
            messages = [{"role": "user", "content": f"{number} {MESSAGES[0]['content']}"}]
            whole = client.chat.completions.create(
                model=model,
                messages=messages,  # type: ignore[arg-type]
                max_completion_tokens=60,
            )
            assert whole.choices[0].message.content
            assert whole.usage is not None
            chunks: Any = client.chat.completions.create(
                model=model,
                messages=messages,  # type: ignore[arg-type]
                stream=True,
            )
            texts = [one.choices[0].delta.content or "" for one in chunks if one.choices]
            assert "".join(texts)
        if dialect == "openai":
            asked: Any = {"model": model, "input": MESSAGES, "max_output_tokens": 60}
            assert client.responses.create(**asked).output_text
            *_, last = client.responses.create(**asked, stream=True)
            assert last.type == "response.completed"
            sent = direct.last_body(dialect)
            assert (sent["model"], sent["store"]) == (model.partition("/")[2], False)
    if dialect == "anthropic":
        spoken = anthropic.Anthropic(
            api_key=customer.key, base_url=admin.stack.gateway, max_retries=0
        )
        with spoken:
            told: Any = {"model": model, "max_tokens": 60, "messages": MESSAGES}
            assert spoken.messages.create(**told, system="Be brief.").content
            with spoken.messages.stream(**told) as stream:
                assert stream.get_final_text()
        (last,) = direct.control(dialect, "GET", "requests?limit=1").json()["requests"]
        given = {name.lower(): value for name, value in last["headers"]}
        assert given["anthropic-beta"] == "context-management-2025-06-27"
        assert "x-api-key" in given and "authorization" not in given
    costs = books.costs(customer)
    bill = books.bill(direct.bill_path(dialect))
    assert len(costs) == (8 if dialect in ("openai", "anthropic") else 6)
    assert costs == {name: Decimal(bill[name]["cost"]) for name in costs}
    assert {bill[name]["key_sha256"] for name in costs} == {digest(DIRECT[dialect][0])}
    assert admin.credits(customer)["available"] < 5
    admin.check_ledger()


def own_keys(admin: Admin, customer: Customer, method: str, path: str, content: object) -> Reply:
    """A call of a customer for the own provider keys."""
    url = f"/api/v1/provider-keys{path}"
    return send_json(admin.stack.api, method, url, content, [customer.bearer])


@pytest.mark.parametrize("provider", ["openrouter", "openai", "google"])
def test_an_own_key_pays_at_its_provider_without_credit(
    provider: str, direct: Direct, admin: Admin, books: Books
) -> None:
    """No credit is needed and none is deducted; the provider bills the own key."""
    prefix = {"openrouter": "sk-or-", "openai": "sk-", "google": "AIza"}[provider]
    key = f"{prefix}own-{secrets.token_hex(8)}"
    if provider == "openrouter":
        name, path, model = provider, admin.stack.bill, "mistralai/mistral-nemo"
        admin.control("POST", "keys", {"key": key})
    else:
        name, path, model = f"direct-{provider}", direct.bill_path(provider), direct.make(provider)
    customer = admin.open_account(None, {"scopes": ["inference", "usage:read", "keys:write"]})
    assert admin.ask(customer, model=model).status == 402
    stored = own_keys(admin, customer, "PUT", f"/{name}", {"key": key})
    assert stored.status == 204, stored.body
    (listed,) = own_keys(admin, customer, "GET", "", None).json()["data"]
    assert listed["hint"].endswith(key[-4:])
    replies: list[Reply] = []

    def is_served() -> bool:
        replies.append(admin.ask(customer, model=model))
        return replies[-1].status == 200

    wait_until(is_served, "the own key is used")
    for stream in (False, True):
        assert admin.ask(customer, model=model, stream=stream).status == 200
    admin.wait_settled(customer)
    rows = admin.rows(
        "SELECT generation_id, own_key_cost_picos, provider_cost_picos, charge_picos"
        " FROM usage_records WHERE account_id = $1",
        customer.id,
    )
    bill = books.bill(path)
    assert len(rows) == 3
    for row in rows:
        billed = bill[row["generation_id"]]
        assert Decimal(row["own_key_cost_picos"]) / PICOS == Decimal(billed["cost"])
        assert billed["key_sha256"] == digest(key)
        assert (row["provider_cost_picos"], row["charge_picos"]) == (0, 0)
    assert admin.credits(customer)["balance"] == 0

    # The provider rejects the key from now on.
    refused = {"key": key, "is_accepted": False}
    if provider == "openrouter":
        admin.control("POST", "keys", refused)
    else:
        direct.control(provider, "POST", "keys", refused)
    reply = admin.ask(customer, model=model)
    assert (reply.status, reply.error["code"]) == (401, "own_key_rejected")
    assert key[-4:] not in reply.body.decode()

    def is_marked() -> bool:
        # A key that was set moments ago is not marked: the refusal may be of the one before.
        assert admin.ask(customer, model=model).status == 401
        (now,) = own_keys(admin, customer, "GET", "", None).json()["data"]
        return bool(now["refused_at"])

    wait_until(is_marked, "the owner sees that the key is refused")
    assert own_keys(admin, customer, "DELETE", f"/{name}", None).status == 204
    wait_until(lambda: admin.ask(customer, model=model).status == 402, "the key is gone")
    admin.check_ledger()


def test_an_alias_is_a_name_of_ours(direct: Direct, admin: Admin, books: Books) -> None:
    model, alias = direct.make("google"), f"fast-{secrets.token_hex(3)}"
    customer = admin.open_account()
    admin.call("PUT", f"aliases/{alias}", {"model": model, "is_redirect": False})
    wait_until(lambda: admin.ask(customer, model=alias).status == 200, "the alias is known")
    costs = books.costs(customer)
    bill = books.bill(direct.bill_path("google"))
    assert costs == {name: Decimal(bill[name]["cost"]) for name in costs}
    found = admin.rows(
        "SELECT DISTINCT model_id FROM usage_records WHERE account_id = $1", customer.id
    )
    assert [row["model_id"] for row in found] == [model]
    admin.call("DELETE", f"aliases/{alias}")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("fault", ["429", "503", "refused"])
def test_the_next_provider_serves_and_is_paid(
    fault: str, is_stream: bool, fleet: Fleet, admin: Admin, books: Books
) -> None:
    first, second = fleet.providers
    # It may have been passed over for its failures before.
    wait_served(admin, FALLBACK_MODEL, first.bill_path)
    if fault == "refused":
        listen(fleet, first, False)
    else:
        behave(fleet, status=int(fault))
    before, asked = first.bill(), 0 if fault == "refused" else count_asked(first)
    customer = admin.open_account()
    try:
        reply = admin.ask(customer, model=FALLBACK_MODEL, stream=is_stream)
    finally:
        if fault == "refused":
            listen(fleet, first, True)
        behave(fleet)
    assert reply.status == 200, reply.body
    assert first.bill() == before
    assert fault == "refused" or count_asked(first) == asked + 1
    ((generation_id, cost),) = books.costs(customer).items()
    billed = books.bill(second.bill_path)[generation_id]
    assert cost == Decimal(billed["cost"]) > 0
    assert billed["key_sha256"] == digest(key_of(second))
    admin.check_ledger()


def test_a_provider_that_dies_in_its_reply_is_not_asked_again(fleet: Fleet, admin: Admin) -> None:
    """It may have billed: no second provider generates, and the client sees the end."""
    first, second = fleet.providers
    wait_served(admin, FALLBACK_MODEL, first.bill_path)
    behave(fleet, cut_before_reply=True, billed=True)
    asked, billed, others = count_asked(first), len(first.bill()), second.bill()
    customer = admin.open_account()
    try:
        reply = admin.ask(customer, model=FALLBACK_MODEL)
    finally:
        behave(fleet)
    assert reply.status == 503, reply.body
    assert (count_asked(first), len(first.bill())) == (asked + 1, billed + 1)
    assert second.bill() == others
    admin.check_ledger()


def count_asked(provider: SimulatedProvider) -> int:
    """The number of requests that reached a provider that listens."""
    reply = send_json(provider.origin, "GET", "/control/requests?limit=1")
    return int(reply.json()["count"])


def listen(fleet: Fleet, provider: SimulatedProvider, is_listening: bool) -> None:
    path = f"/control/dialects/{provider.name}"
    told = send_json(fleet.control, "PUT", path, {"is_listening": is_listening})
    assert told.status == 200, told.body


def test_a_provider_added_under_load_drops_no_request(
    fleet: Fleet, admin: Admin, books: Books
) -> None:
    customer = admin.open_account("50")
    path = "/v1/chat/completions"
    models = ("openai/gpt-4o-mini", FALLBACK_MODEL)
    asked = [Request(customer, path, chat(model=models[n % 2])) for n in range(200)]

    def add(number: int) -> None:
        provider = fleet.providers[number % 2]
        make_provider(admin, f"added-{number}", "openai", provider.base_url, key_of(provider))

    async def both() -> list[int]:
        sending = asyncio.create_task(send_all(admin.stack.gateway, asked, 8))
        for number in range(3):
            await asyncio.to_thread(add, number)
        return [outcome.status for outcome in await sending]

    assert set(run_in_thread(both)) == {200}
    costs = books.costs(customer)
    bills = [books.bill(one.bill_path) for one in fleet.providers] + [books.bill(admin.stack.bill)]
    bill = {name: row for one in bills for name, row in one.items()}
    assert len(costs) == len(asked)
    assert costs == {name: Decimal(bill[name]["cost"]) for name in costs}
    for number in range(3):
        admin.call("DELETE", f"providers/added-{number}")
