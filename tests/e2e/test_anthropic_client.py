"""The unmodified Anthropic client finds what it expects, and pays exactly what was billed."""

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.admin import Admin, Customer
from tests.e2e.first_bytes import Line
from tests.e2e.raw_http import JSON, send, send_json
from tests.e2e.running_stack import wait_until

# Each worker imports this module; only the one that runs these tests shall import the client.
if TYPE_CHECKING:
    import anthropic

PATH = "/v1/messages"
CLAUDE = "anthropic/claude-sonnet-4.5"
HELLO: Any = [{"role": "user", "content": "Hello"}]
LOOK: Any = {
    "name": "look",
    "description": "Look somewhere",
    "input_schema": {"type": "object", "properties": {"where": {"type": "string"}}},
}
CACHED: Any = {
    "type": "text",
    "text": "You know all about tolls. " * 40,
    "cache_control": {"type": "ephemeral"},
}
FAKE_USAGE = (
    '{"usage":{"input_tokens":1,"output_tokens":1,"cost":99.5}}\n\nevent: message_delta\ndata: '
    '{"type":"message_delta","usage":{"output_tokens":7,"cost":77}}\n\n'
)
THINKING: Any = {"type": "enabled", "budget_tokens": 1_024}


def client(admin: Admin, customer: Customer, base: str = "") -> "anthropic.Anthropic":
    """A client as users make it."""
    import anthropic

    return anthropic.Anthropic(
        api_key=customer.key, base_url=admin.stack.gateway + base, max_retries=0
    )


def check_paid(admin: Admin, customer: Customer, generation_ids: set[str]) -> None:
    """Everything is settled with the cost of the bill, no request twice."""
    wait_until(
        lambda: admin.hold_states(customer) == {"settled": len(generation_ids)},
        "every request is settled",
    )
    usage = admin.usage(customer)
    assert set(usage) == generation_ids
    for generation_id, cost in usage.items():
        assert Decimal(cost) == Decimal(admin.bill_row(generation_id).cost) > 0


def test_messages_are_answered_streamed_and_paid_for(admin: Admin) -> None:
    customer = admin.open_account()
    ids = set()
    for base in ("", "/api"):
        speaker = client(admin, customer, base)
        said = speaker.messages.create(
            model=CLAUDE, max_tokens=60, messages=HELLO, system=[CACHED], thinking=THINKING
        )
        assert [block.type for block in said.content] == ["thinking", "text"]
        ids.add(said.id)
        # The beta part of the client writes a query string.
        ids.add(speaker.beta.messages.create(model=CLAUDE, max_tokens=9, messages=HELLO).id)
        with speaker.messages.stream(
            model=CLAUDE, max_tokens=60, messages=HELLO, system=[CACHED]
        ) as stream:
            text = "".join(stream.text_stream)
            whole = stream.get_final_message()
        assert text and whole.content[0].type == "text"
        assert whole.usage.cache_creation_input_tokens
        ids.add(whole.id)
    check_paid(admin, customer, ids)
    # Streams name no cost, so the provider's record was looked up.
    sources = admin.rows(
        "SELECT source, price_source, count(*) FROM usage_records WHERE account_id = $1"
        " GROUP BY 1, 2",
        customer.id,
    )
    assert {row["price_source"] for row in sources} == {"provider"}
    assert "lookup" in {row["source"] for row in sources}


def test_tools_are_called_until_the_loop_ends(admin: Admin) -> None:
    customer = admin.open_account()
    speaker = client(admin, customer)
    asked: list[Any] = [{"role": "user", "content": 'look {"where": "here"}'}]
    called = speaker.messages.create(model=CLAUDE, max_tokens=99, messages=asked, tools=[LOOK])
    (call,) = [block for block in called.content if block.type == "tool_use"]
    assert (call.name, call.input, called.stop_reason) == ("look", {"where": "here"}, "tool_use")
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "seen"}
    asked += [{"role": "assistant", "content": called.content}]
    asked += [{"role": "user", "content": [result]}]
    ended = speaker.messages.create(model=CLAUDE, max_tokens=99, messages=asked, tools=[LOOK])
    assert ended.stop_reason == "end_turn"
    check_paid(admin, customer, {called.id, ended.id})


# What the upstream does to a stream. It is told nothing of costs, so all are looked up.
CASES: tuple[dict[str, Any], ...] = (
    {},
    {"chunk_sizes": [1], "chunk_delay_ms": 0},
    {"chunk_sizes": [1, 2, 3, 5, 8, 13, 21, 34, 200]},
    {"line_ending": "\r\n", "chunk_sizes": [7]},
    {"text": FAKE_USAGE, "chunk_sizes": [13]},
    {"text": FAKE_USAGE, "silent_usage": True},
    {"usage_placeholder": "lesser_after"},
    {"usage_after_done": True},
    {"error_midstream": True},
)


def test_streams_are_untouched_however_they_are_cut(admin: Admin) -> None:
    """Byte for byte what the upstream sends, and settled by what it billed."""
    customer, ids = admin.open_account("50"), set()
    key = (admin.stack.home / "simulator/provider.key").read_text().strip()
    asked = {"model": CLAUDE, "max_tokens": 99, "messages": HELLO, "stream": True}
    for behaviour in CASES:
        admin.misbehave(**behaviour)
        ours = send_json(admin.stack.gateway, "POST", PATH, asked, [customer.bearer])
        assert ours.status == 200, ours.body
        ids.add(ours.headers["x-generation-id"])
        headers = [("Authorization", f"Bearer {key}"), JSON]
        sent = admin.received()["body"]
        # It has our tag: a report of this one would be taken for one of the request above.
        admin.misbehave(**behaviour, omit_report=True)
        straight = send(admin.stack.simulator, "POST", f"/api{PATH}", headers, sent)
        assert same_for_all(ours.body) == same_for_all(straight.body), behaviour
    check_paid(admin, customer, ids)


def same_for_all(stream: bytes) -> bytes:
    """The stream without the id, in which two answers to one question differ."""
    return re.sub(rb"gen-[0-9]{10}-[A-Za-z0-9]{20}", b"gen-X", stream)


def test_the_first_event_does_not_wait_for_the_last(admin: Admin) -> None:
    customer = admin.open_account()
    admin.misbehave(chunk_delay_ms=60)
    line = Line(admin.stack.gateway, PATH, customer.key)
    asked = {"model": CLAUDE, "max_tokens": 99, "messages": HELLO, "stream": True}
    first_ms, last_ms = line.first_and_last_ms(asked)
    line.close()
    assert last_ms - first_ms > 3 * 60


def test_a_client_that_leaves_a_stream_pays_what_was_billed(admin: Admin) -> None:
    customer = admin.open_account()
    admin.misbehave(match={"stream": True}, times=1, chunk_sizes=[200], chunk_delay_ms=200)
    with client(admin, customer).messages.create(
        model=CLAUDE, max_tokens=500, messages=HELLO, stream=True
    ) as stream:
        first = next(iter(stream))
    assert first.type == "message_start"
    check_paid(admin, customer, {first.message.id})


def test_tokens_are_estimated_for_nothing(admin: Admin) -> None:
    customer = admin.open_account()
    speaker = client(admin, customer)
    short = speaker.messages.count_tokens(model=CLAUDE, messages=HELLO)
    long = speaker.messages.count_tokens(model=CLAUDE, messages=HELLO, system=[CACHED])
    assert 0 < short.input_tokens < long.input_tokens
    assert speaker.beta.messages.count_tokens(model=CLAUDE, messages=HELLO).input_tokens > 0
    assert admin.hold_states(customer) == {}


def test_errors_are_of_the_classes_that_users_expect(admin: Admin) -> None:
    import anthropic

    customer = admin.open_account()
    speaker = client(admin, customer)

    def refused(kind: str, **members: Any) -> dict[str, Any]:
        asked = {"model": CLAUDE, "max_tokens": 9, "messages": HELLO, **members}
        with pytest.raises(anthropic.APIStatusError) as raised:
            speaker.messages.create(**asked)
        assert type(raised.value).__name__ == kind
        body: Any = raised.value.body
        assert body["type"] == "error"
        found: dict[str, Any] = body["error"]
        return found

    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    unbounded = refused("BadRequestError", tools=[search])
    assert (unbounded["type"], unbounded["param"]) == ("invalid_request_error", "tools")
    assert refused("NotFoundError", model="no/such")["code"] == "model_not_found"
    admin.misbehave(status=429, times=1)
    assert refused("RateLimitError")["type"] == "rate_limit_error"
    admin.misbehave(status=503, times=1)
    refused("ServiceUnavailableError")
    speaker = client(admin, admin.open_account("0.000001"))
    broke = {"type": "billing_error", "code": "insufficient_credits"}
    assert refused("PaymentRequiredError").items() >= broke.items()
    speaker = client(admin, admin.open_account(key={"allowed_models": ["openai/*"]}))
    assert refused("PermissionDeniedError")["code"] == "model_not_allowed"
    speaker = speaker.with_options(api_key="tk-nonsense")
    assert refused("AuthenticationError")["type"] == "authentication_error"


def test_a_key_may_come_in_anthropics_header(admin: Admin) -> None:
    customer = admin.open_account()
    asked = {"model": CLAUDE, "max_tokens": 9, "messages": HELLO}
    headers = [("x-api-key", customer.key), ("anthropic-version", "2023-06-01")]
    headers += [("anthropic-beta", "context-1m-2025-08-07")]
    reply = send_json(admin.stack.gateway, "POST", f"{PATH}?beta=true", asked, headers)
    assert reply.status == 200, reply.body
    received = {name.lower() for name, _ in admin.received()["headers"]}
    assert "anthropic-version" in received
    assert received.isdisjoint({"x-api-key", "anthropic-beta"})
    check_paid(admin, customer, {json.loads(reply.body)["id"]})
