"""The dialects of other providers: the types of OpenAI's SDK, usage, errors, keys, bills."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from anthropic.types import ModelInfo
from openai import AsyncOpenAI, BadRequestError, NotFoundError, RateLimitError
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from meter.providers.dialects import DIALECTS as METER_DIALECTS
from meter.providers.provider import DialectName
from meter.sealing import SecretText
from tests.contract.tollkeeper.simulator.listening import listening
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.catalogue import Catalogue
from tollkeeper.simulator.dialects import DIALECTS, OPENROUTER
from tollkeeper.simulator.dialects.dialect import ProviderDialect
from tollkeeper.simulator.listening import Listener, Switches
from tollkeeper.simulator.settings import SimulatorSettings
from tollkeeper.stack.servers.ports import free_port

KEYS = {
    "openai": "sk-own-0123456789",
    "anthropic": "sk-ant-own-0123456789",
    "google": "AIzaOwn-0123456789",
    "openai_compatible": "any-key-0123456789",
}
MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-flash",
    "openai_compatible": "Qwen/Qwen3-8B",
}
MESSAGES = [{"role": "user", "content": "Hello there, and tell me all about tolls. " * 20}]


@dataclass
class Provider:
    """One running dialect, asked with its own key."""

    dialect: ProviderDialect
    session: aiohttp.ClientSession
    url: str
    bill: Bill

    @property
    def key(self) -> str:
        return KEYS[self.dialect.id]

    @property
    def model(self) -> str:
        return MODELS[self.dialect.id]

    @property
    def base_url(self) -> str:
        return f"{self.url}{self.dialect.base_path}"

    def sdk(self, key: str | None = None) -> AsyncOpenAI:
        return AsyncOpenAI(api_key=key or self.key, base_url=self.base_url, max_retries=0)

    async def post(self, path: str, body: dict[str, Any], key: str | None = None) -> Any:
        """The status and the JSON or text of an answer."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        async with self.session.post(f"{self.base_url}/{path}", json=body, headers=headers) as got:
            text = await got.text()
        is_json = got.content_type == "application/json"
        return got.status, json.loads(text, parse_float=Decimal) if is_json else text

    async def chat(self, **members: Any) -> Any:
        body = {"model": self.model, "messages": MESSAGES, **members}
        status, answer = await self.post("chat/completions", body)
        assert status == 200, answer
        return answer

    async def stream(self, **members: Any) -> list[dict[str, Any]]:
        """The JSON of each event, validated by OpenAI's types."""
        text = await self.chat(stream=True, **members)
        assert text.endswith("data: [DONE]\n\n")
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        for line in lines:
            ChatCompletionChunk.model_validate_json(line)
        return [json.loads(line) for line in lines]

    async def control(self, path: str, body: dict[str, Any]) -> None:
        async with self.session.post(f"{self.url}/control/{path}", json=body) as got:
            assert got.status in (201, 204), await got.text()

    def expected_cost(self, usage: dict[str, Any]) -> Decimal:
        """The cost by the list of prices and what the reply says was used."""
        catalogue = Catalogue(self.dialect.models(), self.dialect.catalogue_name)
        model = catalogue.find(self.model)
        assert model is not None
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens", 0)
        output = usage["total_tokens"] - usage["prompt_tokens"]
        picos = (usage["prompt_tokens"] - cached) * model.prices.prompt_picos
        picos += cached * (model.prices.cache_read_picos or 0)
        return Decimal(picos + output * model.prices.completion_picos) / 10**12


@asynccontextmanager
async def running(dialect: ProviderDialect, path: Path) -> AsyncIterator[Provider]:
    bill = Bill(path)
    app = build_app(bill, SimulatorSettings(), dialect=dialect, seed=7)
    async with listening(app) as url, aiohttp.ClientSession() as session:
        yield Provider(dialect, session, url, bill)
    await bill.close()


@pytest.fixture(params=sorted(KEYS))
async def provider(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Provider]:
    async with running(DIALECTS[request.param], tmp_path / "bill.jsonl") as one:
        yield one


@asynccontextmanager
async def only(dialect_id: str, tmp_path: Path) -> AsyncIterator[Provider]:
    async with running(DIALECTS[dialect_id], tmp_path / "bill.jsonl") as one:
        yield one


async def test_replies_are_of_openais_types_and_name_no_cost(provider: Provider) -> None:
    answer = await provider.chat()
    ChatCompletion.model_validate(json.loads(json.dumps(answer)))
    assert "cost" not in answer["usage"]
    assert not {"provider", "native_finish_reason"} & {*answer, *answer["choices"][0]}
    row = provider.bill.rows()[-1]
    assert row.generation_id == answer["id"]
    assert Decimal(row.cost) == provider.expected_cost(answer["usage"]) > 0
    assert row.key_sha256 == hashlib.sha256(provider.key.encode()).hexdigest()


async def test_a_stream_has_usage_only_when_asked(provider: Provider) -> None:
    assert not any("usage" in chunk for chunk in await provider.stream())
    chunks = await provider.stream(stream_options={"include_usage": True})
    said = [chunk["usage"] for chunk in chunks if chunk["usage"] is not None]
    counted = [usage["completion_tokens"] for usage in said]
    if provider.dialect.id == "google":
        # In every chunk, counted from the beginning: whoever adds them up charges too much.
        assert len(said) == len(chunks) > 2
        assert counted == sorted(counted) and counted[0] < counted[-1]
    else:
        assert said == [chunks[-1]["usage"]]
        assert chunks[-1]["choices"] == []
    assert Decimal(provider.bill.rows()[-1].cost) == provider.expected_cost(said[-1])


async def test_the_sdk_is_served_json_and_streams(provider: Provider) -> None:
    async with provider.sdk() as sdk:
        whole = await sdk.chat.completions.create(model=provider.model, messages=MESSAGES)  # type: ignore[arg-type]
        assert whole.choices[0].message.content
        with pytest.raises((NotFoundError, BadRequestError)):
            await sdk.chat.completions.create(model="no-such-model", messages=MESSAGES)  # type: ignore[arg-type]
    assert provider.bill.row_count == 1


async def test_a_rejected_key_is_answered_as_the_provider_does(provider: Provider) -> None:
    await provider.control("keys", {"key": provider.key, "is_accepted": False})
    body = {"model": provider.model, "messages": MESSAGES}
    status, answer = await provider.post("chat/completions", body)
    match provider.dialect.id:
        case "google":
            assert status == 400
            assert answer[0]["error"]["details"][0]["reason"] == "API_KEY_INVALID"
        case "openai_compatible":
            assert (status, answer) == (401, {"error": "Unauthorized"})
        case "openai":
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
            # OpenAI shows the ends of the key: nobody may pass that on.
            assert provider.key[-4:] in answer["error"]["message"]
        case _:
            assert (status, answer["error"]["type"]) == (401, "authentication_error")
    assert provider.bill.row_count == 0


async def test_faults_come_in_the_providers_shape_and_are_not_billed(provider: Provider) -> None:
    for status in (429, 503):
        await provider.control("behaviours", {"status": status, "times": 1})
        body = {"model": provider.model, "messages": MESSAGES}
        got, answer = await provider.post("chat/completions", body)
        error = answer[0] if provider.dialect.id == "google" else answer
        assert got == status
        assert error["error"]["message"]
    await provider.control("behaviours", {"status": 429, "times": 1})
    async with provider.sdk() as sdk:
        with pytest.raises(RateLimitError):
            await sdk.chat.completions.create(model=provider.model, messages=MESSAGES)  # type: ignore[arg-type]
    await provider.control("behaviours", {"cut_after_bytes": 40, "times": 1})
    with pytest.raises(aiohttp.ClientError):
        await provider.chat()
    assert provider.bill.row_count == 1


async def test_embeddings_have_no_id(provider: Provider) -> None:
    names = {
        "openai": "text-embedding-3-small",
        "google": "gemini-embedding-001",
        "openai_compatible": "nomic-embed-text",
    }
    name = names.get(provider.dialect.id)
    status, answer = await provider.post("embeddings", {"model": name, "input": "Hello"})
    if name is None:
        assert status == 404
        return
    CreateEmbeddingResponse.model_validate(json.loads(json.dumps(answer, default=float)))
    assert "id" not in answer
    assert provider.bill.row_count == 1


async def test_models_are_listed_without_prices_and_for_a_key(provider: Provider) -> None:
    url, is_anthropic = f"{provider.base_url}/models", provider.dialect.id == "anthropic"
    bearer = {"Authorization": f"Bearer {provider.key}"}
    own = {"x-api-key": provider.key, "anthropic-version": "2023-06-01"}
    async with provider.session.get(url, headers=own if is_anthropic else bearer) as got:
        assert got.status == 200
        listed = (await got.json())["data"]
    assert all("pricing" not in one for one in listed)
    if is_anthropic:
        by_id = {one["id"]: ModelInfo.model_validate(one) for one in listed}
        assert by_id["claude-sonnet-4-5-20250929"].lifecycle == "active"
        retired = by_id["claude-3-5-sonnet-20241022"]
        assert retired.lifecycle == "retired"
        body = {"model": retired.id, "messages": MESSAGES}
        assert (await provider.post("chat/completions", body))[0] == 404
        async with provider.session.get(url, headers=bearer) as got:
            assert got.status == 401
        return
    for one in listed:
        Model.model_validate({"created": 0, **one})
    async with provider.session.get(url) as got:
        assert got.status == {"openai": 401, "google": 400}.get(provider.dialect.id, 200)
    prefix = "models/" if provider.dialect.id == "google" else ""
    assert f"{prefix}{provider.model}" in {one["id"] for one in listed}


async def test_openai_refuses_what_only_openrouter_knows(tmp_path: Path) -> None:
    async with only("openai", tmp_path) as openai:
        body = {"model": "gpt-4o-mini", "messages": MESSAGES}
        unknown: tuple[dict[str, Any], ...] = (
            {"provider": {"max_price": {}}},
            {"trace": {}},
            {"models": ["gpt-4o"]},
        )
        for member in unknown:
            status, answer = await openai.post("chat/completions", {**body, **member})
            assert status == 400
            assert "Unrecognized request argument" in answer["error"]["message"]
        body["model"] = "gpt-5-mini"
        status, answer = await openai.post("chat/completions", {**body, "max_tokens": 9})
        assert (status, answer["error"]["code"]) == (400, "unsupported_parameter")
        status, _ = await openai.post("chat/completions", {**body, "max_completion_tokens": 9})
        assert status == 200


async def test_thoughts_of_google_are_billed_beside_its_completion_tokens(tmp_path: Path) -> None:
    async with only("google", tmp_path) as google:
        answer = await google.chat()
        usage, row = answer["usage"], google.bill.rows()[-1]
    assert row.reasoning_tokens > 0
    assert usage["completion_tokens"] == row.completion_tokens - row.reasoning_tokens
    assert usage["total_tokens"] - usage["prompt_tokens"] == row.completion_tokens


async def test_anthropic_answers_an_undated_name_with_the_dated_one(tmp_path: Path) -> None:
    async with only("anthropic", tmp_path) as anthropic:
        answer = await anthropic.chat()
    assert answer["model"] == "claude-sonnet-4-5-20250929"


async def test_a_dialect_refuses_connections_until_it_is_switched_on(tmp_path: Path) -> None:
    bill = Bill(tmp_path / "bill.jsonl")
    dialect, port = DIALECTS["openai"], free_port()
    app = build_app(bill, SimulatorSettings(), dialect=dialect)
    listener = Listener(app, dialect, "127.0.0.1", port, drain_seconds=1)
    await listener.start()
    main = web.Application()
    main.add_routes(Switches({dialect.id: listener}).routes())
    control = web.AppRunner(main)
    await control.setup()
    await web.TCPSite(control, "127.0.0.1", 0).start()
    switch = f"http://127.0.0.1:{control.addresses[0][1]}/control/dialects/openai"
    models, headers = f"{listener.base_url}/models", {"Authorization": "Bearer sk-any"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for is_on in (True, False, True):
            async with session.put(switch, json={"is_listening": is_on}) as told:
                assert (await told.json())["dialects"][0]["is_listening"] is is_on
            if is_on:
                async with session.get(models) as got:
                    assert got.status == 200
            else:
                with pytest.raises(aiohttp.ClientConnectionError):
                    await session.get(models)
    await control.cleanup()
    await listener.close()
    await bill.close()


async def test_the_meter_reads_the_listing_and_sees_a_rejected_key(provider: Provider) -> None:
    dialect = METER_DIALECTS[DialectName(provider.dialect.id)]
    session, url, key = provider.session, provider.base_url, SecretText(provider.key)
    assert await dialect.check_key(session, url, key) is None
    listed = await dialect.fetch_catalogue(session, url, key)
    assert listed.withheld == ()
    names = {one.upstream_name: one.catalogue_names for one in listed.unpriced}
    catalogue = Catalogue(provider.dialect.models(), provider.dialect.catalogue_name)
    assert set(names) == {model.id for model in catalogue}
    if dialect.model_prefix:
        # OpenRouter lists each under one of these names, which brings its price.
        known = {model.id for model in OPENROUTER.models()}
        found = {
            name
            for name in names
            for other in names[name]
            if f"{provider.dialect.id}/{other}" in known
        }
        assert found == set(names)
    await provider.control("keys", {"key": provider.key, "is_accepted": False})
    refusal = await dialect.check_key(session, url, key)
    assert refusal is not None
    assert provider.key[-4:] not in refusal.advice("p")
