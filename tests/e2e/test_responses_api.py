"""POST /responses end to end: OpenAI's client, streams byte for byte, exact bills, refusals."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.admin import MODEL, Admin, Customer
from tests.e2e.first_bytes import Line
from tests.e2e.raw_http import JSON, Reply, send, send_json
from tests.e2e.running_stack import wait_until

# Each worker imports this module; only the one that runs these tests shall import the client.
if TYPE_CHECKING:
    import openai

THINKING_MODEL = "openai/gpt-5-nano"
# Long enough for half of it to be read from the cache.
HELLO = "Tell me about tolls and bridges. " * 30
LOOK: Any = {
    "type": "function",
    "name": "look",
    "strict": False,
    "parameters": {"type": "object", "properties": {"where": {"type": "string"}}},
}
FAKE_USAGE = (
    '{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":1,'
    '"cost":99.5}}}\n\ndata: {"response":{"id":"resp_fake","usage":{"cost":77}}}\n\ndata: [DONE]'
)

# What the upstream does, and how the hold must end.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "as usual": ({}, "settled"),
    "every byte apart": ({"chunk_sizes": [1], "chunk_delay_ms": 0}, "settled"),
    "uneven": ({"chunk_sizes": [1, 2, 3, 5, 8, 13, 21, 34, 200]}, "settled"),
    "carriage returns and line feeds, in pieces": (
        {"line_ending": "\r\n", "chunk_sizes": [7]},
        "settled",
    ),
    "a limit that is reached": ({"text": "Lorem ipsum " * 50}, "settled"),
    "usage in the text": ({"text": FAKE_USAGE, "chunk_sizes": [13]}, "settled"),
    "usage in the text only": ({"text": FAKE_USAGE, "silent_usage": True}, "unknown"),
    "no usage": ({"silent_usage": True}, "unknown"),
    "usage of null": ({"usage_null": True}, "unknown"),
    "zeros after the usage": ({"usage_placeholder": "zeros_after"}, "unknown"),
    "no cost": ({"cost_form": "missing"}, "unknown"),
    "a failed response": ({"error_midstream": True}, "unknown"),
}


def body(**members: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": HELLO, "max_output_tokens": 60, **members}


def client(admin: Admin, customer: Customer, prefix: str = "/v1") -> "openai.OpenAI":
    """A client as users make it."""
    import openai

    base_url = f"{admin.stack.gateway}{prefix}"
    return openai.OpenAI(base_url=base_url, api_key=customer.key, max_retries=0)


def costs(admin: Admin, customer: Customer) -> dict[str, Decimal]:
    """The settled cost of each generation of a customer."""
    admin.wait_settled(customer)
    return {name: Decimal(cost) for name, cost in admin.usage(customer).items()}


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1/llm", "/api/v1"])
def test_a_loop_of_an_agent_is_answered_and_paid_exactly(admin: Admin, prefix: str) -> None:
    """A call of a tool, whole, then a text as a stream after the tool's reply."""
    customer, before = admin.open_account(), len(admin.bill())
    speaker = client(admin, customer, prefix)
    said: Any = [{"role": "user", "content": HELLO}]
    include: Any = ["reasoning.encrypted_content"]
    first = speaker.responses.create(
        model=THINKING_MODEL, input=said, tools=[LOOK], include=include
    )
    output: Any = first.output
    (call,) = output
    assert call.type == "function_call"
    assert "where" in json.loads(call.arguments)
    said += [one.model_dump(exclude_none=True) for one in first.output]
    said.append({"type": "function_call_output", "call_id": call.call_id, "output": "fog"})
    with speaker.responses.stream(model=THINKING_MODEL, input=said, tools=[LOOK]) as stream:
        last = [event.type for event in stream][-1]
        final = stream.get_final_response()
    assert last == "response.completed"
    assert final.output_text.startswith("Simulated")
    assert final.usage is not None and final.usage.output_tokens_details.reasoning_tokens > 0
    said += [one.model_dump(exclude_none=True) for one in final.output]
    said.append({"role": "user", "content": "And now?"})
    last_reply = speaker.responses.create(model=THINKING_MODEL, input=said, include=include)
    assert [one.type for one in last_reply.output] == ["reasoning", "message"]
    billed = {row.generation_id: Decimal(row.cost) for row in admin.bill()[before:]}
    assert costs(admin, customer) == billed
    assert len(billed) == 3
    assert admin.credits(customer)["available"] == 5 - sum(billed.values())


def test_a_body_is_changed_by_what_bounds_it_and_by_nothing_else(admin: Admin) -> None:
    customer, path = admin.open_account("0.01"), "/v1/responses"
    raw = b'{"model": "%s", "input": "gr\\u00f6\\u00dfe \xc3\xb6", "seed_": null}' % MODEL.encode()
    reply = send(admin.stack.gateway, "POST", path, [customer.bearer, JSON], raw)
    assert reply.status == 200, reply.body
    arrived = admin.received()
    assert arrived["path"] == "/api/v1/responses"
    added = re.compile(rb'"max_output_tokens":\d+,"store":false,"trace":.*?\}\},')
    assert added.sub(b"", arrived["body"], count=1) == raw
    admin.wait_settled(customer)
    assert admin.hold_states(customer) == {"settled": 1}


def same_for_all(stream: bytes) -> bytes:
    """The stream without that in which two answers to one question differ."""
    stream = re.sub(rb'"((?:resp|msg|rs|fc)_)[A-Za-z0-9]{20}', rb'"\1X', stream)
    return re.sub(rb'"(created|completed)_at":[0-9]{10}', rb'"\1_at":0', stream)


@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_untouched_and_settled_or_unknown(admin: Admin, name: str) -> None:
    behaviour, expected = CASES[name]
    customer, path = admin.open_account("50"), "/v1/responses"
    admin.misbehave(**behaviour)
    ours = send_json(admin.stack.gateway, "POST", path, body(stream=True), [customer.bearer])
    assert ours.status == 200, ours.body
    generation_id = ours.headers["x-generation-id"]
    sent = admin.received()["body"]
    key = (admin.stack.home / "simulator/provider.key").read_text().strip()
    headers = [("Authorization", f"Bearer {key}"), JSON]
    straight: Reply = send(admin.stack.simulator, "POST", f"/api{path}", headers, sent)
    assert same_for_all(ours.body) == same_for_all(straight.body)
    settled = costs(admin, customer)
    assert admin.hold_states(customer) == {expected: 1}
    cost = Decimal(admin.bill_row(generation_id).cost)
    assert settled == ({generation_id: cost} if expected == "settled" else {})
    charged = cost if expected == "settled" else 0
    assert admin.credits(customer)["balance"] == 50 - charged


def test_a_client_that_leaves_is_not_forgotten(admin: Admin) -> None:
    """The provider bills it in full; the hold stays and knows the generation."""
    customer = admin.open_account()
    admin.misbehave(chunk_delay_ms=100)
    line = Line(admin.stack.gateway, "/v1/responses", customer.key)
    line.leave_after_first_byte(body(stream=True))
    wait_until(lambda: "unknown" in admin.hold_states(customer), "the hold is known to be unknown")
    (row,) = admin.rows("SELECT generation_id FROM holds WHERE account_id = $1", customer.id)
    assert row["generation_id"] == admin.bill()[-1].generation_id
    assert admin.credits(customer)["balance"] == 5


REFUSALS: list[tuple[Callable[[Admin], Customer], dict[str, Any], str, str]] = [
    (lambda admin: Customer("x", "x", "tk-" + "a" * 66), {}, "AuthenticationError", "invalid"),
    (lambda admin: admin.open_account(), {"model": "no/such"}, "NotFoundError", "model_not_found"),
    (lambda admin: admin.open_account(), {"store": True}, "BadRequestError", "invalid_value"),
    (
        lambda admin: admin.open_account(),
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        "BadRequestError",
        "cost_unbounded",
    ),
    (lambda admin: admin.open_account("0.000001"), {}, "APIStatusError", "insufficient_credits"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[3])
def test_a_refusal_is_the_error_that_users_expect(admin: Admin, refusal: Any) -> None:
    import openai

    customer_of, members, error, code = refusal
    with pytest.raises(getattr(openai, error)) as caught:
        client(admin, customer_of(admin)).responses.create(**body(**members))
    assert str(caught.value.code).startswith(code)


def test_a_refusal_of_the_provider_keeps_its_status(admin: Admin) -> None:
    import openai

    customer = admin.open_account()
    admin.misbehave(status=429, times=1)
    with pytest.raises(openai.RateLimitError):
        client(admin, customer).responses.create(**body())
    admin.wait_settled(customer)
    assert admin.credits(customer)["available"] == 5
