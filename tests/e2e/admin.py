"""The administrator of a running stack: accounts and keys, the books, the upstream's bill."""

import base64
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import asyncpg

from meter.money import format_usd
from tests.e2e.raw_http import Reply, send_json
from tests.e2e.running_stack import RunningStack, wait_until
from tests.servers import run_in_thread
from tollkeeper.stack.home import locate
from tollkeeper.stack.servers.postgres import DATABASE, SUPERUSER

MODEL = "openai/gpt-4o-mini"
TAG = re.compile(rb'"trace":\{"trace_id":"[0-9a-f]{32}"\},"provider":\{"max_price":\{[^{}]*\}\},')


@dataclass(frozen=True, slots=True)
class Customer:
    """An account of one test's own, with its first key."""

    id: str
    key_id: str
    key: str = field(repr=False)

    @property
    def bearer(self) -> tuple[str, str]:
        """The header that presents the key."""
        return ("Authorization", f"Bearer {self.key}")


@dataclass(frozen=True, slots=True)
class BillRow:
    """The upstream's charge for one generation; cost as it wrote it."""

    generation_id: str
    model: str
    cost: str


@dataclass(slots=True)
class Admin:
    """The rights and views of an administrator and an auditor."""

    stack: RunningStack
    # Whether the upstream was told to refuse our key, or another key was set.
    is_key_doubted: bool = False

    def wait_well(self) -> None:
        """Until the supervisor has noted that every component answers."""

        def is_well() -> bool:
            noted = json.loads((self.stack.home / "status.json").read_text())
            return all(one["is_healthy"] for one in noted["components"])

        wait_until(is_well, "every component is healthy")

    def call(self, method: str, path: str, content: object = None, **headers: str) -> Any:
        """A call to the meter API that must succeed; its answer."""
        given = [("Authorization", f"Bearer {self.stack.operator_token}")]
        given += [(name.replace("_", "-"), value) for name, value in headers.items()]
        reply = send_json(self.stack.api, method, f"/api/v1/admin/{path}", content, given)
        assert reply.status in (200, 201, 204), (path, reply.status, reply.body)
        return reply.json() if reply.body else None

    def open_account(
        self, credit: str | None = "5", key: dict[str, Any] | None = None, **terms: Any
    ) -> Customer:
        """A new account; `terms` may name plan and markup_bps, `key` the key's own terms."""
        name = f"e2e-{secrets.token_hex(6)}"
        user = self.call("POST", "users", {"id": name, "email": f"{name}@example.com", **terms})
        if credit is not None:
            self.give(user["id"], credit)
        issued = self.call("POST", f"users/{name}/api-keys", {"name": "first", **(key or {})})
        return Customer(name, issued["id"], issued["key"])

    def give(self, account_id: str, amount: str) -> None:
        """Credit in US dollars."""
        content = {"amount": amount, "reason": "test"}
        path = f"users/{account_id}/credits"
        self.call("POST", path, content, Idempotency_Key=secrets.token_hex(8))

    def credits(self, customer: Customer) -> dict[str, Decimal]:
        """Balance, held and available, in US dollars."""
        found = self.call("GET", f"users/{customer.id}/credits")
        return {name: Decimal(amount) for name, amount in found.items()}

    def ask(
        self,
        customer: Customer,
        headers: Sequence[tuple[str, str]] = (),
        path: str = "/v1/chat/completions",
        **members: Any,
    ) -> Reply:
        """One paid request through Envoy; a short chat unless `members` say otherwise."""
        return send_json(
            self.stack.gateway, "POST", path, chat(**members), [customer.bearer, *headers]
        )

    def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Ask the books directly, past everything that we wrote."""

        async def fetch() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.dsn)
            try:
                return await connection.fetch(statement, *values)
            finally:
                await connection.close()

        return run_in_thread(fetch)

    @property
    def dsn(self) -> str:
        """The DSN with which an auditor reaches the books of this stack."""
        sockets = locate(self.stack.home).run / "pg"
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={sockets}"

    def hold_states(self, *customers: Customer) -> dict[str, int]:
        """Return the number of holds of these accounts in each state."""
        found = self.rows(
            "SELECT state, count(*) AS holds FROM"
            " (SELECT account_id, state FROM holds"
            "  UNION ALL SELECT account_id, state FROM ended_holds) every"
            " WHERE account_id = ANY ($1) GROUP BY 1",
            [customer.id for customer in customers],
        )
        return {row["state"]: row["holds"] for row in found}

    def wait_settled(self, *customers: Customer) -> None:
        """Until no hold of these accounts is open."""
        wait_until(lambda: "open" not in self.hold_states(*customers), "no hold is open")

    def usage(self, *customers: Customer) -> dict[str, str]:
        """Provider cost in US dollars of each settled generation of these accounts."""
        found = self.rows(
            "SELECT generation_id, provider_cost_picos FROM usage_records"
            " WHERE account_id = ANY ($1)",
            [customer.id for customer in customers],
        )
        return {row["generation_id"]: format_usd(row["provider_cost_picos"]) for row in found}

    def bill(self) -> list[BillRow]:
        """All rows of the upstream's bill, from its file."""
        found = [json.loads(line) for line in self.stack.bill.read_text().splitlines()]
        return [BillRow(row["generation_id"], row["model"], row["cost"]) for row in found]

    def bill_row(self, generation_id: str) -> BillRow:
        """The one row of a generation."""
        (row,) = [row for row in self.bill() if row.generation_id == generation_id]
        return row

    def control(self, method: str, path: str, content: object = None) -> Any:
        """A call to the simulator's control API."""
        reply = send_json(self.stack.simulator, method, f"/control/{path}", content)
        assert reply.status in (200, 201, 204), reply.body
        return reply.json() if reply.body else None

    def misbehave(self, **behaviour: Any) -> None:
        """Tell the upstream to do this, `times` times, and to forget what it was told before."""
        self.control("DELETE", "behaviours")
        self.control("POST", "behaviours", behaviour)
        self.is_key_doubted |= behaviour.get("status") in (401, 402, 403)

    def restore_key(self) -> None:
        """Set the key of the upstream again: `status` would stay red for ten minutes."""
        own = (self.stack.home / "simulator/provider.key").read_text().strip()
        self.call("PUT", "providers/openrouter/key", {"key": own})
        wait_until(lambda: bool(self.stack.status()["is_healthy"]), "the upstream accepts our key")

    def received(self) -> dict[str, Any]:
        """Return the number of requests that the upstream got, and the last with its `body`."""
        found = self.control("GET", "requests?limit=1")
        last: dict[str, Any] = found["requests"][0] if found["requests"] else {}
        if last:
            last["body"] = base64.b64decode(last.pop("body_base64"))
        return {"count": found["count"], **last}

    def check_ledger(self) -> None:
        """The books agree with themselves."""
        found = self.call("GET", "ledger/verification")
        assert found["ok"] is True, found["failures"]


def chat(**members: Any) -> dict[str, Any]:
    """The body of a short chat; members given replace ours, None takes one away."""
    body = {
        "model": MODEL,
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "Hello"}],
        **members,
    }
    return {name: value for name, value in body.items() if value is not None}


def untagged(body: bytes) -> bytes:
    """A body as the client sent it, without the report tag and the price limits."""
    left, tags = TAG.subn(b"", body)
    assert tags == 1, body
    return left
