"""Searches, speech and transcriptions of the simulator, by unmodified clients, and their bill."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from tests.contract.tollkeeper.simulator.listening import listening
from tests.sounds import wav
from tollkeeper.simulator.app import build_app
from tollkeeper.simulator.bill import Bill, BillRow
from tollkeeper.simulator.settings import SimulatorSettings

KEY = "sk-or-test-0123456789"
SEARCH = {"query": "tolls", "documents": ["bridges", {"text": "ships"}, "roads"], "top_n": 2}


@asynccontextmanager
async def simulator(folder: Path) -> AsyncIterator[tuple[str, Bill]]:
    bill = Bill(folder / "bill.jsonl")
    async with listening(build_app(bill, SimulatorSettings(generation_delay_ms=0))) as url:
        yield f"{url}/api/v1", bill
        await bill.close()


async def call(url: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        asked = session.get(url) if body is None else session.post(url, json=body)
        async with asked as got:
            return got.status, await got.json(loads=loads)


def loads(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def last(bill: Bill) -> BillRow:
    return bill.rows()[-1]


async def test_a_search_is_billed_by_its_units(tmp_path: Path) -> None:
    async with simulator(tmp_path) as (url, bill):
        status, reply = await call(f"{url}/rerank", {"model": "cohere/rerank-v3.5", **SEARCH})
        assert status == 200
        assert len(reply["results"]) == 2
        scores = [one["relevance_score"] for one in reply["results"]]
        assert scores == sorted(scores, reverse=True)
        assert reply["usage"]["search_units"] == 1
        assert reply["usage"]["cost"] == Decimal(last(bill).cost) == Decimal("0.002")
        assert reply["id"] == last(bill).generation_id
        # A dearer endpoint is refused where the request forbids it.
        capped = {**SEARCH, "provider": {"max_price": {"request": 0.001}}}
        status, _ = await call(f"{url}/rerank", {"model": "cohere/rerank-v3.5", **capped})
        assert status == 404


async def test_openais_client_gets_speech(tmp_path: Path) -> None:
    async with simulator(tmp_path) as (url, bill):
        client = AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0)
        text = "Größe, in all her forms."
        reply = await client.audio.speech.create(
            model="mistralai/voxtral-mini-tts-2603",
            voice="alloy",
            input=text,
            response_format="mp3",
        )
        assert reply.response.headers["content-type"] == "audio/mpeg"
        assert reply.content[:2] == b"\xff\xfb"
        assert Decimal(last(bill).cost) == len(text) * Decimal("0.000016")
        generation_id = reply.response.headers["x-generation-id"]
        status, record = await call(f"{url}/generation?id={generation_id}")
        assert (status, record["data"]["total_cost"]) == (200, Decimal(last(bill).cost))


@pytest.mark.parametrize(("seconds", "billed"), [(1, 10), (12, 12)])
async def test_openais_client_gets_a_transcription(
    tmp_path: Path, seconds: int, billed: int
) -> None:
    async with simulator(tmp_path) as (url, bill):
        client = AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0)
        reply = await client.audio.transcriptions.create(
            model="openai/whisper-1",
            file=("sound.wav", wav(seconds)),
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )
        assert "simulated" in reply.text
        assert reply.duration == seconds
        assert Decimal(last(bill).cost) == billed * Decimal("0.0001")


async def test_the_listing_has_what_replies_are_asked_for(tmp_path: Path) -> None:
    async with simulator(tmp_path) as (url, _):
        listed = {}
        for kind in ("text", "rerank", "speech,transcription", "all"):
            _, reply = await call(f"{url}/models?output_modalities={kind}")
            listed[kind] = {model["id"] for model in reply["data"]}
        _, reply = await call(f"{url}/models")
        assert {model["id"] for model in reply["data"]} == listed["text"]
        assert "cohere/rerank-v3.5" in listed["rerank"] - listed["text"]
        assert "openai/whisper-1" in listed["speech,transcription"] - listed["text"]
        assert listed["all"] > listed["text"] | listed["rerank"] | listed["speech,transcription"]
