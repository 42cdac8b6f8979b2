"""Searches, speech and transcriptions through the whole stack, by unmodified clients."""

import secrets
from decimal import Decimal
from typing import Any

import openai
import pytest

from tests.e2e.admin import Admin, Customer
from tests.e2e.raw_http import Reply, send_json
from tests.e2e.running_stack import wait_until
from tests.sounds import wav

PREFIXES = ("/v1", "/api/v1/llm", "/api/v1")
SEARCH = {"query": "Who pays?", "documents": ["The ship pays.", "Nobody pays."], "top_n": 1}
VOICE = "mistralai/voxtral-mini-tts-2603"
TEXT = "Größe, in all her forms, and at length. " * 20


def client(admin: Admin, customer: Customer, prefix: str = "/v1") -> openai.OpenAI:
    base_url = f"{admin.stack.gateway}{prefix}"
    return openai.OpenAI(base_url=base_url, api_key=customer.key, max_retries=0)


def search(admin: Admin, customer: Customer, prefix: str = "/v1", **members: Any) -> Reply:
    body = {"model": "cohere/rerank-v3.5", **SEARCH, **members}
    return send_json(admin.stack.gateway, "POST", f"{prefix}/rerank", body, [customer.bearer])


def check_books(admin: Admin, customer: Customer, generation_id: str, cost: str) -> None:
    """The generation is settled at its exact cost, and nothing is held any more."""
    # The record of a speech comes some seconds after it.
    wait_until(lambda: admin.hold_states(customer) == {"settled": 1}, "the request is settled")
    billed = admin.bill_row(generation_id).cost
    assert Decimal(billed) == Decimal(cost)
    assert admin.usage(customer) == {generation_id: billed}
    (row,) = admin.rows("SELECT * FROM usage_records WHERE account_id = $1", customer.id)
    assert row["excess_picos"] == 0


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_search_is_ranked_and_paid_for(admin: Admin, prefix: str) -> None:
    customer = admin.open_account(markup_bps=1_000)
    reply = search(admin, customer, prefix)
    assert reply.status == 200, reply.body
    answer = reply.json()
    assert len(answer["results"]) == 1
    check_books(admin, customer, answer["id"], "0.002")
    assert 5 - admin.credits(customer)["balance"] == Decimal("0.0022")


def test_a_search_without_a_listed_price_waits_for_one(admin: Admin) -> None:
    customer, model = admin.open_account(), "cohere/rerank-4-pro"
    refused = search(admin, customer, model=model)
    assert (refused.status, refused.json()["error"]["code"]) == (400, "cost_unbounded")
    assert "price" in refused.json()["error"]["message"]
    price = {
        "model": model,
        "prompt_usd_per_million": "0",
        "completion_usd_per_million": "0",
        "request_usd": "0.0025",
    }
    admin.call("POST", "providers/openrouter/prices", {"prices": [price]})
    wait_until(
        lambda: search(admin, customer, model=model).status == 200, "authz to have the price"
    )
    admin.wait_settled(customer)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_speech_is_settled_by_the_providers_record(admin: Admin, prefix: str) -> None:
    customer = admin.open_account()
    reply = client(admin, customer, prefix).audio.speech.create(
        model=VOICE, voice="alloy", input=TEXT, response_format="mp3"
    )
    assert reply.response.headers["content-type"] == "audio/mpeg"
    assert len(reply.content) > 10_000
    assert reply.content[:2] == b"\xff\xfb"
    generation_id = reply.response.headers["x-generation-id"]
    check_books(admin, customer, generation_id, str(len(TEXT) * Decimal("0.000016")))


def test_a_speech_that_breaks_off_is_paid_for(admin: Admin) -> None:
    customer = admin.open_account()
    admin.misbehave(match={"model": VOICE}, cut_after_bytes=2_000, times=1)
    before = len(admin.bill())
    with pytest.raises(openai.APIConnectionError):
        client(admin, customer).audio.speech.create(model=VOICE, voice="alloy", input=TEXT)
    (row,) = admin.bill()[before:]
    check_books(admin, customer, row.generation_id, str(len(TEXT) * Decimal("0.000016")))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_form_is_transcribed_and_paid_for(admin: Admin, prefix: str) -> None:
    customer, sound = admin.open_account(), wav(12)
    raw = client(admin, customer, prefix).audio.transcriptions.with_raw_response.create(
        model="openai/whisper-1", file=("sound.wav", sound), response_format="verbose_json"
    )
    assert "simulated" in raw.parse().text
    received = admin.received()
    assert received["path"] == "/api/v1/audio/transcriptions"
    assert sound in received["body"]
    check_books(admin, customer, raw.headers["x-generation-id"], "0.0012")


def test_a_form_names_a_model_by_its_alias(admin: Admin) -> None:
    customer, alias = admin.open_account(), f"ear-{secrets.token_hex(3)}"
    admin.call("PUT", f"aliases/{alias}", {"model": "openai/whisper-1", "is_redirect": False})
    made = client(admin, customer)

    def is_served() -> bool:
        try:
            made.audio.transcriptions.create(model=alias, file=("a.wav", wav(1)))
        except openai.NotFoundError:
            return False
        return True

    wait_until(is_served, "authz to know the alias")
    assert b"openai/whisper-1\r\n" in admin.received()["body"]
    admin.wait_settled(customer)
    assert set(admin.usage(customer).values()) == {"0.001"}


def test_a_sound_that_its_size_does_not_bound_is_refused(admin: Admin) -> None:
    customer = admin.open_account()
    before = admin.received()["count"]
    with pytest.raises(openai.BadRequestError) as raised:
        client(admin, customer).audio.transcriptions.create(
            model="openai/whisper-1", file=("sound.ogg", b"OggS" + bytes(500))
        )
    assert (raised.value.code, raised.value.param) == ("cost_unbounded", "file")
    assert "'wav'" in raised.value.message
    assert admin.received()["count"] == before
    assert admin.hold_states(customer) == {}
