"""Reconciliation of a running system: load never looks like drift, and what is drift shows."""

import json
import threading
from decimal import Decimal
from typing import Any

from tests.e2e.admin import Admin, chat
from tests.e2e.crowd import Request, send_all
from tests.e2e.raw_http import send_json
from tests.servers import run_in_thread
from tollkeeper.stack.home import locate

REQUESTS = 300
AT_ONCE = 16
# Far more than all of the load together costs.
DEAR = {"model": "openai/o1", "max_tokens": 2_000, "messages": [{"role": "user", "content": "x"}]}


def reconciled(admin: Admin, query: str = "") -> dict[str, Any]:
    """The report of a reconciliation now."""
    report: dict[str, Any] = admin.call("POST", f"reconciliations{query}")
    return report


def billed_elsewhere(admin: Admin) -> Decimal:
    """A request with our provider key that came past the gateway; what it cost."""
    key = locate(admin.stack.home).simulator_key.read_text().strip()
    # More than everything that other tests spent in the minutes for which a provider may lag.
    admin.misbehave(prompt_tokens=10_000_000, times=1)
    reply = send_json(
        admin.stack.simulator,
        "POST",
        "/api/v1/chat/completions",
        DEAR,
        [("Authorization", f"Bearer {key}")],
    )
    assert reply.status == 200, reply.body
    return Decimal(json.loads(reply.body, parse_float=Decimal)["usage"]["cost"])


def test_load_is_no_drift_and_what_nobody_booked_is(admin: Admin) -> None:
    assert reconciled(admin, "?new_baseline=true")["ok"]
    payer = admin.open_account()
    requests = [Request(payer, "/v1/chat/completions", chat()) for _ in range(REQUESTS)]
    load = threading.Thread(
        target=lambda: run_in_thread(lambda: send_all(admin.stack.gateway, requests, AT_ONCE))
    )
    load.start()
    looks = 0
    while load.is_alive() or looks < 3:
        report = reconciled(admin)
        assert report["ok"], report
        assert report["provider"]["drift"] == "0.00"
        looks += 1
    load.join()
    admin.wait_settled(payer)
    assert reconciled(admin)["ok"]

    cost = billed_elsewhere(admin)
    ended = admin.stack.run("reconcile")
    assert ended.returncode == 1, ended.stdout
    provider = json.loads(ended.stdout)["provider"]
    assert cost / 2 < Decimal(provider["drift"]) <= cost
    assert json.loads(ended.stdout)["failures"] == []
    assert admin.stack.run("reconcile", "--new-baseline").returncode == 0
    assert admin.stack.run("reconcile").returncode == 0
