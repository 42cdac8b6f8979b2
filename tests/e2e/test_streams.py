"""Streams reach the client as the upstream sent them, at once, and are never billed wrongly."""

import base64
import http.client
import json
import re
from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.admin import MODEL, Admin, Customer, chat
from tests.e2e.first_bytes import Line
from tests.e2e.raw_http import JSON, Reply, send
from tests.e2e.running_stack import wait_until

CHUNK_DELAY_MS = 60
# The upstream sends more chunks than that for a short reply.
LEAST_CHUNKS = 3
FAKE_USAGE = (
    '{"usage":{"prompt_tokens":1,"completion_tokens":1,"cost":99.5}}\n\n'
    'data: {"id":"gen-fake","usage":{"prompt_tokens":7,"completion_tokens":7,"cost":77}}\n\n'
    'data: [DONE]\r\n\r\n: "usage": {"cost": 1}'
)
LARGE_TEXT = "Lorem ipsum \u2603 " * 75_000

# What the upstream does, and how the hold must end.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "as usual": ({}, "settled"),
    "every byte apart": ({"chunk_sizes": [1], "chunk_delay_ms": 0}, "settled"),
    "seven bytes": ({"chunk_sizes": [7]}, "settled"),
    "uneven": ({"chunk_sizes": [1, 2, 3, 5, 8, 13, 21, 34, 200]}, "settled"),
    "all at once": ({"chunk_sizes": [1_000_000]}, "settled"),
    "around an event": ({"chunk_sizes": [25, 1]}, "settled"),
    "carriage returns and line feeds": ({"line_ending": "\r\n"}, "settled"),
    "the same cut between the two": (
        {"line_ending": "\r\n", "chunk_sizes": [1], "chunk_delay_ms": 0},
        "settled",
    ),
    "carriage returns": ({"line_ending": "\r"}, "settled"),
    "the same in pieces": ({"line_ending": "\r", "chunk_sizes": [3]}, "settled"),
    "usage of null": ({"usage_null": True}, "unknown"),
    "no usage": ({"silent_usage": True}, "unknown"),
    "usage after the end": ({"usage_after_done": True}, "settled"),
    "the same in pieces of eleven": ({"usage_after_done": True, "chunk_sizes": [11]}, "settled"),
    "usage in the text": ({"text": FAKE_USAGE}, "settled"),
    "usage in the text, cut": ({"text": FAKE_USAGE, "chunk_sizes": [13]}, "settled"),
    "usage in the text only": ({"text": FAKE_USAGE, "silent_usage": True}, "unknown"),
    "a megabyte": ({"text": LARGE_TEXT}, "settled"),
    "a megabyte in pieces": (
        {"text": LARGE_TEXT, "chunk_sizes": [65_537, 1, 4_095], "chunk_delay_ms": 0},
        "settled",
    ),
    "no header with the id": ({"omit_generation_id": True}, "settled"),
    "an error halfway": ({"error_midstream": True}, "unknown"),
    "a cost of nought": ({"zero_cost": True}, "unknown"),
    "slow": ({"delay_ms": 50, "chunk_delay_ms": 5}, "settled"),
}


def same_for_all(stream: bytes) -> bytes:
    """The stream without the two things in which two answers to one question differ."""
    stream = re.sub(rb"gen-[0-9]{10}-[A-Za-z0-9]{20}", b"gen-X", stream)
    return re.sub(rb'"created":[0-9]{10}', b'"created":0', stream)


def provider_key(admin: Admin) -> str:
    """The key that the upstream accepts."""
    return (admin.stack.home / "simulator" / "provider.key").read_text().strip()


def forwarded(admin: Admin) -> bytes:
    """The body of the last question, as the upstream received it."""
    found = admin.control("GET", "requests?limit=100")["requests"]
    asked = [one for one in found if one["method"] == "POST"]
    return base64.b64decode(asked[-1]["body_base64"])


def straight(admin: Admin, body: bytes) -> Reply:
    """The same question, put to the upstream itself."""
    headers = [("Authorization", f"Bearer {provider_key(admin)}"), JSON]
    reply = send(admin.stack.simulator, "POST", "/api/v1/chat/completions", headers, body)
    assert reply.status == 200
    return reply


def hold_of(admin: Admin, customer: Customer) -> dict[str, Any]:
    """The only hold of a customer, once it is not open any more; `generation_id` while live."""
    admin.wait_settled(customer)
    (row,) = admin.rows(
        "SELECT id, state, generation_id FROM holds WHERE account_id = $1"
        " UNION ALL SELECT id, state, NULL FROM ended_holds WHERE account_id = $1",
        customer.id,
    )
    return dict(row)


@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_untouched_and_settled_or_unknown(admin: Admin, name: str) -> None:
    behaviour, expected = CASES[name]
    customer, body = admin.open_account("50"), chat(stream=True, max_tokens=2_000_000)
    admin.misbehave(**behaviour)
    ours = admin.ask(customer, stream=True, max_tokens=2_000_000)
    assert ours.headers["content-type"] == "text/event-stream"
    sent = forwarded(admin)
    # All that we add to a question that names its own limit is the tag to report it by, and the
    # prices that the provider must not exceed.
    ours_alone = {"trace": None, "provider": None}
    assert {**json.loads(sent), **ours_alone} == {**body, **ours_alone}
    assert same_for_all(ours.body) == same_for_all(straight(admin, sent).body)
    generation = re.search(rb'"id":"(gen-[^"]+)"', ours.body)
    assert generation is not None
    generation_id = generation[1].decode()
    assert hold_of(admin, customer)["state"] == expected
    check_money(admin, customer, generation_id, expected)


def check_money(admin: Admin, customer: Customer, generation_id: str, state: str) -> None:
    """Settled is exact; unknown keeps the hold, knows where to ask, and has charged nothing."""
    funds = admin.credits(customer)
    if state == "settled":
        cost = Decimal(admin.bill_row(generation_id).cost)
        assert {name: Decimal(one) for name, one in admin.usage(customer).items()} == {
            generation_id: cost
        }
        assert funds["balance"] == funds["available"] == 50 - cost
        return
    assert admin.usage(customer) == {}
    assert funds["balance"] == 50
    assert funds["held"] > Decimal(admin.bill_row(generation_id).cost)
    assert hold_of(admin, customer)["generation_id"] == generation_id


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_breaks_off_is_unknown(admin: Admin, stream: bool) -> None:
    customer = admin.open_account()
    admin.misbehave(cut_after_bytes=300)
    if stream:
        with pytest.raises(http.client.IncompleteRead):
            admin.ask(customer, stream=True)
    else:
        assert admin.ask(customer).error["code"] == "provider_unavailable"
    hold = hold_of(admin, customer)
    assert hold["state"] == "unknown"
    # The id is kept although Envoy's own error replaces a JSON reply that breaks off.
    assert hold["generation_id"] == admin.bill()[-1].generation_id
    funds = admin.credits(customer)
    assert funds["balance"] == 5
    assert funds["held"] > 0


@pytest.mark.parametrize(("mib", "status", "state"), [(30, 200, "settled"), (129, 500, "unknown")])
def test_an_answer_without_a_stream_may_be_large(
    admin: Admin, mib: int, status: int, state: str
) -> None:
    """One that is too large for us was billed all the same: its hold stays."""
    customer = admin.open_account()
    admin.misbehave(reply_bytes=mib * 2**20)
    reply = admin.ask(customer)
    assert reply.status == status
    assert hold_of(admin, customer)["state"] == state
    cost = Decimal(admin.bill()[-1].cost)
    assert admin.credits(customer)["balance"] == 5 - (cost if state == "settled" else 0)


def test_the_first_event_does_not_wait_for_the_last(admin: Admin) -> None:
    customer = admin.open_account()
    admin.misbehave(chunk_delay_ms=CHUNK_DELAY_MS)
    line = Line(admin.stack.gateway, "/v1/chat/completions", customer.key)
    first_ms, last_ms = line.first_and_last_ms({**chat(), "model": MODEL, "stream": True})
    line.close()
    assert last_ms - first_ms > LEAST_CHUNKS * CHUNK_DELAY_MS


def test_a_client_that_leaves_is_not_forgotten(admin: Admin) -> None:
    """The provider bills it in full; the hold stays and knows the generation."""
    customer = admin.open_account()
    admin.misbehave(chunk_delay_ms=100)
    line = Line(admin.stack.gateway, "/v1/chat/completions", customer.key)
    line.leave_after_first_byte({**chat(), "stream": True})
    wait_until(lambda: "unknown" in admin.hold_states(customer), "the hold is known to be unknown")
    assert hold_of(admin, customer)["generation_id"] == admin.bill()[-1].generation_id
    assert admin.credits(customer)["balance"] == 5


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_answer_is_not_forgotten(
    admin: Admin, stream: bool
) -> None:
    """The provider goes on and bills; nobody knows the generation yet, and the hold says so."""
    customer, billed = admin.open_account(), len(admin.bill())
    admin.misbehave(delay_ms=400)
    line = Line(admin.stack.gateway, "/v1/chat/completions", customer.key)
    line.leave_unanswered({**chat(), "stream": stream}, after_s=0.2)
    assert hold_of(admin, customer)["state"] == "unknown"
    assert admin.credits(customer)["balance"] == 5
    wait_until(lambda: len(admin.bill()) == billed + 1, "the provider has billed")
