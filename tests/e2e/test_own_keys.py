"""An account's own provider key, end to end: it pays, it is refused, it is gone within moments."""

import hashlib
import json
import secrets
from typing import Any

from tests.e2e.admin import Admin, Customer
from tests.e2e.raw_http import Reply, send_json
from tests.e2e.running_stack import wait_until

OWN = f"sk-or-v1-own-key-of-a-customer-{secrets.token_hex(8)}"
PATH = "/api/v1/provider-keys"


def own(admin: Admin, customer: Customer, method: str, path: str, body: object = None) -> Reply:
    """A call of the account about its own keys."""
    return send_json(admin.stack.api, method, PATH + path, body, [customer.bearer])


def records(admin: Admin, customer: Customer) -> list[dict[str, Any]]:
    """Return the usage that the books have of the requests of an account."""
    rows = admin.rows(
        "SELECT provider_cost_picos, charge_picos, own_key_cost_picos FROM usage_records"
        " WHERE account_id = $1",
        customer.id,
    )
    return [dict(row) for row in rows]


def test_an_own_key_pays_is_refused_and_is_gone(admin: Admin) -> None:
    scopes = {"scopes": ["inference", "usage:read", "keys:write"]}
    customer = admin.open_account(credit=None, key=scopes)
    assert admin.ask(customer).status == 402
    admin.control("POST", "keys", {"key": OWN, "is_accepted": True})
    assert own(admin, customer, "PUT", "/openrouter", {"key": OWN}).status == 204
    wait_until(lambda: admin.ask(customer).status == 200, "the own key is used")

    admin.wait_settled(customer)
    (record,) = records(admin, customer)
    assert (record["provider_cost_picos"], record["charge_picos"]) == (0, 0)
    assert record["own_key_cost_picos"] > 0
    rows = [json.loads(line) for line in admin.stack.bill.read_text().splitlines()]
    digest = hashlib.sha256(OWN.encode()).hexdigest()
    assert len([row for row in rows if row["key_sha256"] == digest]) == 1
    balance = "SELECT balance_picos, held_picos FROM accounts WHERE id = $1"
    assert [tuple(row) for row in admin.rows(balance, customer.id)] == [(0, 0)]

    admin.control("POST", "keys", {"key": OWN, "is_accepted": False})
    refused = admin.ask(customer)
    assert (refused.status, refused.json()["error"]["code"]) == (401, "own_key_rejected")

    def is_marked() -> bool:
        # A refusal so soon after the key was set may be of the former one, and marks nothing.
        assert admin.ask(customer).status == 401
        shown = own(admin, customer, "GET", "").json()["data"][0]
        return bool(shown["refused_status"] == 401)

    wait_until(is_marked, "the owner sees that the key is refused")
    assert own(admin, customer, "DELETE", "/openrouter").status == 204
    wait_until(lambda: admin.ask(customer).status == 402, "the own key is used no more")
    admin.wait_settled(customer)
    admin.check_ledger()
    assert admin.stack.status()["is_healthy"], "our key is not blamed"
    for file in admin.stack.home.rglob("*.*"):
        # Not the database: there the key is sealed, and its files are many.
        if file.is_file() and file.suffix in (".log", ".jsonl", ".json", ".yaml"):
            assert OWN.encode() not in file.read_bytes(), file
