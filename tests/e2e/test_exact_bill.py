"""The provider's bill and the ledger agree, to the last pico-dollar."""

import itertools
import math
import random
from base64 import b64encode
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.e2e.admin import Admin, BillRow, Customer
from tests.e2e.crowd import Request, send_all
from tests.e2e.running_stack import wait_until
from tests.servers import run_in_thread
from tollkeeper.simulator.answers.measured import MP3_FRAME

REQUESTS = 1_000
AT_ONCE = 32
SEED = 20_260
PICOS = 10**12
# In basis points; None is the plan's own. The odd ones leave fractions of a pico-dollar.
MARKUPS_BPS = (None, 0, 333, 1_250, 9_999)

CHAT_MODELS = (
    "openai/gpt-5",
    "openai/gpt-5-nano",
    "openai/gpt-4.1-mini",
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
    "openai/o1",
    "openai/o3-mini",
    "openai/gpt-oss-20b:free",
    "anthropic/claude-opus-4.1",
    "anthropic/claude-sonnet-4.5",
    "anthropic/claude-haiku-4.5",
    "google/gemini-2.5-pro",
    "google/gemini-2.5-flash",
    "google/gemma-3-4b-it",
    "google/gemini-2.0-flash-exp:free",
    "meta-llama/llama-3.2-1b-instruct",
    "meta-llama/llama-3.3-70b-instruct:free",
    "mistralai/mistral-nemo",
    "deepseek/deepseek-r1",
    "deepseek/deepseek-chat-v3-0324",
    "qwen/qwen3-32b",
    "x-ai/grok-4",
    "cohere/command-r7b-12-2024",
    "perplexity/sonar",
    "microsoft/phi-4",
)
TEXT_MODELS = ("openai/gpt-3.5-turbo-instruct", "mistralai/mistral-7b-instruct")
# Members whose cost is bounded apart from text (ADR 0005), each with a model for it.
DOCUMENT = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf,A"}}
WORK: tuple[tuple[str, dict[str, Any]], ...] = (
    ("google/gemini-2.5-flash-image", {"modalities": ["image", "text"]}),
    ("openai/gpt-4o-mini", {"tools": [{"type": "openrouter:web_search"}], "max_tool_calls": 2}),
    ("openai/gpt-4o-mini", {"tools": [{"type": "web_search", "engine": "parallel"}]}),
    ("openai/gpt-4.1-mini", {"web_search_options": {"search_context_size": "high"}}),
    ("openai/gpt-4o-mini", {"plugins": [{"id": "web", "engine": "exa", "mode": "deep"}]}),
    (
        "openai/gpt-4o-mini",
        {"plugins": [{"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}]},
    ),
    ("openai/gpt-4o-mini", {}),
)
# What is billed by other units than tokens.
MEASURED: tuple[tuple[str, str], ...] = (
    ("rerank", "cohere/rerank-v3.5"),
    ("rerank", "qwen/qwen3-reranker-8b"),
    ("audio/speech", "hexgrad/kokoro-82m"),
    ("audio/transcriptions", "openai/whisper-large-v3-turbo"),
)
EMBEDDING_MODELS = ("openai/text-embedding-3-small", "baai/bge-m3")


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Paths and bodies without end, the same in every run, of every kind we serve."""
    draw = random.Random(SEED)
    for number in itertools.count():
        words = f"{number} " + "lorem ipsum " * draw.randrange(60)
        kind = draw.randrange(10)
        if kind == 0:
            inputs = [words, "x"][: draw.randrange(1, 3)]
            yield "embeddings", {"model": draw.choice(EMBEDDING_MODELS), "input": inputs}
        elif kind == 1:
            yield "completions", {"model": draw.choice(TEXT_MODELS), "prompt": words, **_how(draw)}
        elif kind == 2:
            asked = {"model": draw.choice(CHAT_MODELS), "input": words, **_how(draw)}
            asked.pop("n", None)
            if limit := asked.pop("max_tokens", None):
                asked["max_output_tokens"] = limit
            yield "responses", asked
        elif kind == 3:
            model, members = draw.choice(WORK)
            parts: list[dict[str, Any]] = [{"type": "text", "text": words}]
            if model == "openai/gpt-4o-mini" and "tools" not in members:
                parts.append(DOCUMENT)
            messages = [{"role": "user", "content": parts}]
            yield (
                "chat/completions",
                {"model": model, "messages": messages, **members, **_how(draw)},
            )
        elif kind == 4:
            messages = [{"role": "user", "content": words}]
            asked = {"model": draw.choice(CHAT_MODELS), "messages": messages, **_how(draw)}
            asked.pop("n", None)
            yield "messages", asked
        elif kind == 5 and draw.random() < 0.5:
            path = draw.choice(("images", "images/generations"))
            yield (
                path,
                {
                    "model": "google/gemini-2.5-flash-image",
                    "prompt": words,
                    "n": draw.randrange(1, 4),
                    "stream": draw.random() < 0.5,
                },
            )
        elif kind == 6:
            path, model = draw.choice(MEASURED)
            yield path, {"model": model, **_measured(path, words)}
        else:
            content: Any = words
            if draw.random() < 0.2:
                content = [{"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}]
            messages = [{"role": "user", "content": content}]
            model = draw.choice(CHAT_MODELS)
            yield "chat/completions", {"model": model, "messages": messages, **_how(draw)}


def _measured(path: str, words: str) -> dict[str, Any]:
    """Return the members of a search, a speech or a transcription."""
    if path == "rerank":
        return {"query": "lorem", "documents": words.split()}
    if path == "audio/speech":
        return {"input": words, "voice": "af_heart"}
    return {"input_audio": {"data": b64encode(MP3_FRAME).decode(), "format": "mp3"}}


def _how(draw: random.Random) -> dict[str, Any]:
    """Half of them stream, half name a limit, some want several answers."""
    how: dict[str, Any] = {"stream": draw.random() < 0.5}
    if draw.random() < 0.5:
        how["max_tokens"] = draw.randrange(1, 60)
    if draw.random() < 0.1:
        how["n"] = 2
    return how


def requests(customers: list[Customer]) -> list[Request]:
    """The thousand, dealt out to the customers."""
    dealt = zip(itertools.cycle(customers), bodies(), strict=False)
    return [
        Request(customer, ("/v1/", "/api/v1/llm/")[len(path) % 2] + path, body)
        for customer, (path, body) in itertools.islice(dealt, REQUESTS)
    ]


def total(rows: list[BillRow]) -> Decimal:
    """The sum of a bill in US dollars, as decimals."""
    return sum((Decimal(row.cost) for row in rows), Decimal(0))


def test_a_thousand_mixed_requests_are_billed_exactly(admin: Admin) -> None:
    customers = [admin.open_account("5000", markup_bps=bps) for bps in MARKUPS_BPS]
    before = len(admin.bill())
    asked = requests(customers)
    assert len({request.body["model"] for request in asked}) >= 20
    outcomes = run_in_thread(lambda: send_all(admin.stack.gateway, asked, AT_ONCE))
    assert [one.body for one in outcomes if one.status != 200] == []
    # Speech, and streams of messages, name no cost: the record has it a few seconds later.
    wait_until(
        lambda: admin.hold_states(*customers) == {"settled": REQUESTS}, "all of them are settled"
    )

    bill = admin.bill()[before:]
    usage = admin.usage(*customers)
    assert len(bill) == len(usage) == REQUESTS
    assert set(usage) == {one.generation_id for one in outcomes}
    assert {row.generation_id: Decimal(row.cost) for row in bill} == {
        generation_id: Decimal(cost) for generation_id, cost in usage.items()
    }
    assert sum(map(Decimal, usage.values())) == total(bill) > 0
    assert admin.hold_states(*customers) == {"settled": REQUESTS}
    for customer in customers:
        check_account(admin, customer)
    check_postings(admin, customers, total(bill))
    verified = admin.stack.run("ledger", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def check_account(admin: Admin, customer: Customer) -> None:
    """Every charge is its cost with the markup, and together they are what is gone."""
    rows = admin.rows(
        "SELECT u.*, coalesce(a.markup_bps, p.markup_bps) AS agreed_bps, a.balance_picos,"
        " a.held_picos, a.overdrawn_picos FROM usage_records u"
        " JOIN accounts a ON a.id = u.account_id JOIN account_plans p ON p.account_id = a.id"
        " WHERE u.account_id = $1",
        customer.id,
    )
    for row in rows:
        assert row["markup_bps"] == row["agreed_bps"]
        exact = Fraction(row["provider_cost_picos"] * (10_000 + row["agreed_bps"]), 10_000)
        assert row["charge_picos"] == math.ceil(exact)
        assert row["excess_picos"] == 0
    charged = sum(row["charge_picos"] for row in rows)
    assert rows[0]["balance_picos"] == 5_000 * PICOS - charged
    assert (rows[0]["held_picos"], rows[0]["overdrawn_picos"]) == (0, 0)
    assert admin.credits(customer)["available"] == 5_000 - Decimal(charged) / PICOS


def check_postings(admin: Admin, customers: list[Customer], billed: Decimal) -> None:
    """Postings sum to zero; what customers paid went to the provider, the rest to us."""
    identities = [customer.id for customer in customers]
    unbalanced = admin.rows(
        "SELECT posting_id FROM entries GROUP BY posting_id HAVING sum(amount_picos) <> 0"
    )
    assert unbalanced == []
    sums = admin.rows(
        "SELECT e.ledger_account, sum(e.amount_picos)::bigint AS picos FROM entries e"
        " JOIN postings p ON p.id = e.posting_id"
        " WHERE p.account_id = ANY ($1) AND p.template = 'settlement' GROUP BY 1",
        identities,
    )
    moved = {row["ledger_account"]: abs(row["picos"]) for row in sums}
    assert Decimal(moved["provider"]) / PICOS == billed
    assert moved["customer"] == moved["provider"] + moved["revenue"]


def test_a_limit_that_the_upstream_ignores_is_charged_beyond_the_hold(admin: Admin) -> None:
    """Never clamped, never dropped: the excess is an entry of its own."""
    customer = admin.open_account("1")
    # A model that no other test asks: the excess raises its holds.
    model = "openai/gpt-4o-2024-11-20"
    admin.misbehave(match={"model": model}, completion_tokens=5_000, times=1)
    reply = admin.ask(customer, model=model, max_tokens=5)
    admin.wait_settled(customer)
    row = admin.bill_row(reply.headers["x-generation-id"])
    assert Decimal(admin.usage(customer)[row.generation_id]) == Decimal(row.cost)
    assert 1 - admin.credits(customer)["balance"] == Decimal(row.cost)
    (excess,) = admin.rows(
        "SELECT excess_picos FROM usage_records WHERE account_id = $1", customer.id
    )
    assert excess["excess_picos"] > 0

    def raised() -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = admin.call("GET", "catalogue/raised-estimates")["data"]
        return [one for one in listed if one["model"] == model]

    wait_until(lambda: bool(raised()), "the estimate to be raised")
    assert raised()[0]["factor"] > 1
    admin.call("DELETE", f"catalogue/raised-estimates?model={model}&endpoint=chat_completions")
    assert not raised()
