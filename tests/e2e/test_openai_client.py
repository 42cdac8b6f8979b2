"""The unmodified OpenAI client finds what it expects, and what it sends arrives as it was sent."""

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.e2e.admin import MODEL, Admin, Customer, untagged
from tests.e2e.running_stack import wait_until

# Each worker imports this module; only the one that runs these tests shall import the client, which
# takes a second of CPU.
if TYPE_CHECKING:
    import openai

PREFIXES = ("/v1", "/api/v1/llm", "/api/v1")
HELLO: Any = [{"role": "user", "content": "Hello"}]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
SEEN: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Was ist das? 画像 \u2603"},
            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        ],
    }
]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ANSWER_AS: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"verdict": {"type": "string"}},
            "required": ["verdict"],
            "additionalProperties": False,
        },
    },
}


@dataclass
class Sent:
    """The request that left the client; `bodies` holds one for each try."""

    bodies: list[bytes] = field(default_factory=list)

    def keep(self, request: httpx2.Request) -> None:
        """Look at a request without touching it."""
        self.bodies.append(request.read())


def client(
    admin: Admin, customer: Customer, prefix: str = "/v1", sent: Sent | None = None, **options: Any
) -> "openai.OpenAI":
    """A client as users make it; `sent` only looks on."""
    import openai

    hooks = {"request": [sent.keep]} if sent else {}
    base_url = f"{admin.stack.gateway}{prefix}"
    watched = httpx2.Client(event_hooks=hooks)
    given = {"api_key": customer.key, "max_retries": 0, **options}
    return openai.OpenAI(base_url=base_url, http_client=watched, **given)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_chat_is_answered_and_paid_for(admin: Admin, prefix: str) -> None:
    customer = admin.open_account()
    answer = client(admin, customer, prefix).chat.completions.create(
        model=MODEL, max_tokens=20, messages=HELLO
    )
    assert answer.model == MODEL
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 20
    admin.wait_settled(customer)
    assert admin.usage(customer) == {answer.id: admin.bill_row(answer.id).cost}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_stream_ends_with_its_usage(admin: Admin, prefix: str) -> None:
    customer = admin.open_account()
    stream = client(admin, customer, prefix).chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0
    admin.wait_settled(customer)
    assert admin.usage(customer) == {chunks[0].id: admin.bill_row(chunks[0].id).cost}


async def test_the_asynchronous_client_is_served_as_well(admin: Admin) -> None:
    import openai

    customer = admin.open_account()
    async with openai.AsyncOpenAI(
        api_key=customer.key, base_url=f"{admin.stack.gateway}/v1"
    ) as client:
        answer = await client.chat.completions.create(model=MODEL, max_tokens=9, messages=HELLO)
        assert answer.choices[0].message.content
        stream = await client.chat.completions.create(
            model=MODEL, max_tokens=9, messages=HELLO, stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="no/such", messages=HELLO)
    admin.wait_settled(customer)
    assert set(admin.usage(customer)) == {answer.id, chunks[0].id}


def test_a_tool_is_called(admin: Admin) -> None:
    """Whole and in a stream; the arguments are whatever the schema asks for."""
    speaker = client(admin, admin.open_account())
    asked: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": HELLO,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    }
    answer = speaker.chat.completions.create(**asked)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    arguments = ""
    for chunk in speaker.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            for piece in choice.delta.tool_calls or []:
                arguments += piece.function.arguments
    assert "city" in json.loads(arguments)


BODIES: dict[str, dict[str, Any]] = {
    "plain": {"messages": HELLO},
    "image": {"messages": SEEN},
    "tools": {"messages": HELLO, "tools": [WEATHER], "tool_choice": "required"},
    "sampling": {
        "messages": HELLO,
        "seed": 9_007_199_254_740_993,
        "top_p": 0.30000000000000004,
        "temperature": 0,
        "frequency_penalty": -0.0,
        "stop": ["\n\n", "\u0000"],
        "logit_bias": {"50256": -100},
    },
    "format": {"messages": HELLO, "response_format": ANSWER_AS},
    "members beside OpenAI's": {
        "messages": HELLO,
        "extra_body": {"min_p": 0.05, "session_id": "s", "metadata": {"a": [None, 1]}},
    },
    "stream": {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}},
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_with_a_limit_arrives_byte_for_byte(admin: Admin, name: str) -> None:
    sent = Sent()
    asked: Any = BODIES[name]
    answer = client(admin, admin.open_account(), sent=sent).chat.completions.create(
        model=MODEL, max_tokens=20, **asked
    )
    if asked.get("stream"):
        list(answer)
    assert untagged(admin.received()["body"]) == sent.bodies[0]
    assert len(sent.bodies) == 1


@pytest.mark.parametrize("name", BODIES)
def test_a_body_without_a_limit_is_given_one_and_nothing_else(admin: Admin, name: str) -> None:
    sent = Sent()
    asked: Any = BODIES[name]
    answer = client(admin, admin.open_account("0.01"), sent=sent).chat.completions.create(
        model=MODEL, **asked
    )
    if asked.get("stream"):
        list(answer)
    arrived = untagged(admin.received()["body"])
    limit = json.loads(arrived)["max_tokens"]
    assert 1 <= limit <= 16_384
    assert arrived.count(b'"max_tokens"') == 1
    assert arrived.replace(b'"max_tokens":%d,' % limit, b"") == sent.bodies[0]


def test_a_reply_keeps_to_its_format(admin: Admin) -> None:
    answer = client(admin, admin.open_account()).chat.completions.create(
        model=MODEL, messages=HELLO, response_format=ANSWER_AS
    )
    assert "verdict" in json.loads(answer.choices[0].message.content or "")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_embeddings_come_as_numbers(admin: Admin, prefix: str) -> None:
    """The client asks for base64 unless told otherwise, and decodes it."""
    customer, sent = admin.open_account(), Sent()
    speaker = client(admin, customer, prefix, sent)
    model = "openai/text-embedding-3-small"
    answer = speaker.embeddings.create(model=model, input=["one", "two"])
    assert json.loads(sent.bodies[0])["encoding_format"] == "base64"
    assert untagged(admin.received()["body"]) == sent.bodies[0]
    assert [len(one.embedding) for one in answer.data] == [1536, 1536]
    plain = speaker.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-6)
    admin.wait_settled(customer)
    assert len(admin.usage(customer)) == 2


@pytest.mark.parametrize("prefix", PREFIXES)
def test_completions_are_served(admin: Admin, prefix: str) -> None:
    speaker = client(admin, admin.open_account(), prefix)
    model = "openai/gpt-3.5-turbo-instruct"
    assert speaker.completions.create(model=model, prompt="Once", max_tokens=9).choices[0].text
    pieces = speaker.completions.create(model=model, prompt="Once", max_tokens=9, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_models_are_listed_with_prices(admin: Admin, prefix: str) -> None:
    import openai

    customer = admin.open_account()
    speaker = client(admin, customer, prefix)
    models = {model.id: model for model in speaker.models.list()}
    assert len(models) >= 100
    one = speaker.models.retrieve(MODEL)
    assert one.id == MODEL
    assert one == models[MODEL]
    assert one.to_dict()["pricing"]["prompt"] == "0.00000015"  # type: ignore[index]
    with pytest.raises(openai.NotFoundError) as caught:
        speaker.models.retrieve("no/such-model")
    # At OpenRouter's base the code is a number.
    assert caught.value.code == ("404" if prefix == "/api/v1" else "model_not_found")
    # No key is needed, so a faulty one is none.
    keyless = client(admin, customer, prefix, api_key="none-is-needed")
    assert MODEL in {model.id for model in keyless.models.list()}


def test_another_header_may_carry_the_key(admin: Admin) -> None:
    """As clients of Anthropic send it; the key does not travel on."""
    import openai

    customer = admin.open_account()
    headers: Any = {"Authorization": openai.omit, "x-api-key": customer.key}
    answer = client(admin, customer).chat.completions.create(
        model=MODEL, max_tokens=9, messages=HELLO, extra_headers=headers
    )
    assert answer.choices
    names = {name.lower() for name, _ in admin.received()["headers"]}
    assert "x-api-key" not in names


def _suspended(admin: Admin) -> Customer:
    customer = admin.open_account()
    admin.call("POST", f"users/{customer.id}/suspend")
    return customer


def _revoked(admin: Admin) -> Customer:
    customer = admin.open_account()
    admin.call("DELETE", f"users/{customer.id}/api-keys/{customer.key_id}")
    return customer


def _made_up(admin: Admin) -> Customer:
    return Customer("nobody", "none", "tk-" + "a" * 66)


def _foreign(admin: Admin) -> Customer:
    return Customer("nobody", "none", "sk-or-v1-" + "0" * 64)


def _open(admin: Admin) -> Customer:
    return admin.open_account()


def _poor(admin: Admin) -> Customer:
    return admin.open_account("0.000001")


def _penniless(admin: Admin) -> Customer:
    return admin.open_account(None)


def _bound(admin: Admin) -> Customer:
    return admin.open_account(key={"allowed_models": ["anthropic/*"]})


REFUSALS: list[tuple[Callable[[Admin], Customer], dict[str, Any], str, str]] = [
    (_made_up, {}, "AuthenticationError", "invalid_api_key"),
    (_foreign, {}, "AuthenticationError", "invalid_api_key"),
    (_revoked, {}, "AuthenticationError", "invalid_api_key"),
    (_bound, {}, "PermissionDeniedError", "model_not_allowed"),
    (_suspended, {}, "PermissionDeniedError", "account_suspended"),
    (_open, {"model": "no/such-model"}, "NotFoundError", "model_not_found"),
    (_open, {"extra_body": {"preset": "mine"}}, "BadRequestError", "cost_unbounded"),
    (_open, {"n": 1000}, "BadRequestError", "invalid_value"),
    (_poor, {}, "APIStatusError", "insufficient_credits"),
    (_penniless, {}, "APIStatusError", "insufficient_credits"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[0].__name__ + refusal[3])
def test_a_refusal_is_the_error_that_users_expect(
    admin: Admin,
    refusal: tuple[Callable[[Admin], Customer], dict[str, Any], str, str],
) -> None:
    """None of them is tried again, although the client would try twice more if it could help."""
    import openai

    customer_of, members, error, code = refusal
    expected: type[openai.APIError] = getattr(openai, error)
    sent, before = Sent(), admin.received()["count"]
    speaker = client(admin, customer_of(admin), sent=sent, max_retries=2)
    with pytest.raises(expected) as caught:
        speaker.chat.completions.create(**{"model": MODEL, "messages": HELLO, **members})
    assert caught.value.code == code
    assert caught.value.type
    assert len(sent.bodies) == 1
    assert admin.received()["count"] == before


def test_a_missing_key_is_an_authentication_error(admin: Admin) -> None:
    import openai

    speaker = client(admin, admin.open_account())
    without: Any = {"Authorization": openai.omit}
    with pytest.raises(openai.AuthenticationError) as caught:
        speaker.chat.completions.create(model=MODEL, messages=HELLO, extra_headers=without)
    assert caught.value.code == "missing_api_key"


def test_too_little_credit_is_402_and_says_how_much(admin: Admin) -> None:
    import openai

    speaker = client(admin, admin.open_account("0.000001"))
    with pytest.raises(openai.APIStatusError, match=r"0\.000001 USD is available") as caught:
        speaker.chat.completions.create(model=MODEL, max_tokens=100, messages=HELLO)
    assert caught.value.status_code == 402
    assert not isinstance(caught.value, openai.RateLimitError)
    assert caught.value.type == "insufficient_quota"


def test_a_limit_is_kept_and_its_waiting_time_told(admin: Admin) -> None:
    """30 in any minute: the 31st is refused until the first of them is a minute ago."""
    import openai

    admin.call("PUT", "plans/slow", {"name": "Slow", "markup_bps": 0, "requests_per_minute": 30})
    customer = admin.open_account(plan="slow")
    for _ in range(30):
        assert admin.ask(customer, max_tokens=1).status == 200
    with pytest.raises(openai.RateLimitError) as caught:
        client(admin, customer).chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.code == "rate_limit_exceeded"
    headers = caught.value.response.headers
    assert headers["x-ratelimit-limit-requests"] == "30"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 50 <= int(headers["retry-after"]) <= 61
    assert 50 <= float(headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 61


def test_the_client_waits_as_long_as_it_is_told(admin: Admin) -> None:
    """One at a time: the second is told to come back in a second, and then there is room."""
    import openai

    customer, sent = admin.open_account(key={"limits": {"concurrent_requests": 1}}), Sent()
    admin.misbehave(delay_ms=5_000, times=1)
    with ThreadPoolExecutor(1) as beside:
        first = beside.submit(admin.ask, customer, max_tokens=1)
        wait_until(lambda: admin.hold_states(customer) == {"open": 1}, "the first one runs")
        impatient = client(admin, customer)
        with pytest.raises(openai.RateLimitError) as caught:
            impatient.chat.completions.create(model=MODEL, max_tokens=1, messages=HELLO)
        assert caught.value.code == "too_many_concurrent_requests"
        assert caught.value.response.headers["retry-after"] == "1"
        began = time.monotonic()
        patient = client(admin, customer, sent=sent, max_retries=20)
        assert patient.chat.completions.create(model=MODEL, max_tokens=1, messages=HELLO).choices
        assert len(sent.bodies) >= 2
        assert time.monotonic() - began >= 0.9
        assert first.result().status == 200


def test_a_picture_of_many_megabytes_passes(admin: Admin) -> None:
    """20 MiB of body, untouched; a picture costs what pictures cost, not what its bytes do."""
    picture = "data:image/png;base64," + base64.b64encode(b"p" * 15 * 2**20).decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}]
    customer, sent = admin.open_account("1"), Sent()
    # A machine with much else to do does not judge 20 MiB in time, says so, and asks to try again.
    answer = client(admin, customer, sent=sent, max_retries=20).chat.completions.create(
        model=MODEL,
        max_tokens=9,
        messages=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
    )
    assert len(sent.bodies[0]) > 20 * 2**20
    assert untagged(admin.received()["body"]) == sent.bodies[0]
    admin.wait_settled(customer)
    assert admin.usage(customer) == {answer.id: admin.bill_row(answer.id).cost}
    # Others look at the last request that the upstream received: let it be a small one.
    admin.ask(admin.open_account(), max_tokens=1)


@pytest.mark.parametrize("stream", [False, True])
def test_pictures_are_drawn_and_billed(admin: Admin, stream: bool) -> None:
    customer = admin.open_account("100")
    speaker, before = client(admin, customer), admin.credits(customer)["balance"]
    asked: Any = {"model": "google/gemini-2.5-flash-image", "prompt": "A red panda"}
    if stream:
        *_, last = speaker.images.generate(**asked, stream=True)
        assert (last.type, bool(last.b64_json)) == ("image_generation.completed", True)
    else:
        reply = speaker.images.generate(**asked, n=2, size="1024x1024")
        assert [bool(one.b64_json) for one in reply.data or ()] == [True, True]
    admin.wait_settled(customer)
    ((generation_id, cost),) = admin.usage(customer).items()
    assert Decimal(cost) == Decimal(admin.bill_row(generation_id).cost) > 0
    assert before - admin.credits(customer)["balance"] >= Decimal(cost)
