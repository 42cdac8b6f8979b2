"""The demo user of a new stack, with some credit and one key."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.home import write_private
from tollkeeper.stack.supervision.probes import HttpAnswer, http

USER_ID = "demo"
CREDIT = "5.00"
REQUEST_TIMEOUT_S = 10.0
# Known to be cheap; the banner shows the first of them that is in the catalogue.
CHEAP_MODELS = ("openai/gpt-4o-mini", "openai/gpt-4.1-nano", "google/gemini-2.5-flash-lite")


@dataclass(frozen=True, slots=True)
class Operator:
    """The administrators' part of the meter API, and the operator token for it."""

    api_url: str
    token: str

    async def post(
        self, path: str, body: object, headers: dict[str, str] | None = None
    ) -> HttpAnswer:
        """POST to the administrators' part; raises StackError when there is no answer."""
        authorization = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        return await _ask("POST", f"{self.api_url}/api/v1/admin{path}", authorization, body)

    def __repr__(self) -> str:
        return f"Operator({self.api_url!r})"


async def ensure_demo_key(operator: Operator, key_file: Path) -> str:
    """Return the demo key in `key_file` if it still works, else a new key that is stored there.

    Raises StackError when the meter API refuses.
    """
    kept = key_file.read_text().strip() if key_file.exists() else ""
    if kept:
        headers = {"Authorization": f"Bearer {kept}"}
        answer = await _ask("GET", f"{operator.api_url}/api/v1/credits", headers)
        if answer.status != 401:
            return kept
    user = {"id": USER_ID, "email": "demo@example.com", "name": "Demo"}
    _require(await operator.post("/users", user), "create the demo user", {201, 409})
    # The text must stay: a stack that exists has posted it under the idempotency key below.
    credit = {"amount": CREDIT, "reason": "first credit of the demo account"}
    once = {"Idempotency-Key": "demo-first-credit"}
    answer = await operator.post(f"/users/{USER_ID}/credits", credit, once)
    _require(answer, "give the demo user its credit", {200, 201})
    answer = await operator.post(f"/users/{USER_ID}/api-keys", {"name": "demo"})
    key = str(_require(answer, "create the demo key", {201})["key"])
    write_private(key_file, key + "\n")
    return key


async def find_models(base_url: str) -> list[dict[str, Any]]:
    """Return the public catalogue; an empty list when there is no answer."""
    try:
        listed = (await http("GET", f"{base_url}/v1/models")).json()
    except (OSError, ValueError):
        return []
    models = listed.get("data", []) if isinstance(listed, dict) else []
    return [model for model in models if isinstance(model, dict)]


async def cheap_model(gateway_url: str) -> str | None:
    """Return the id of a cheap model, or None when the catalogue is empty."""
    models = await find_models(gateway_url)
    ids = [str(model["id"]) for model in models]
    known = [model for model in CHEAP_MODELS if model in ids]
    if known:
        return known[0]
    priced = [(price, str(model["id"])) for model in models if (price := _price(model))]
    return min(priced)[1] if priced else next(iter(ids), None)


def _price(model: dict[str, Any]) -> Decimal | None:
    """Return the price of an output token; None for a free model or one without answers."""
    try:
        return Decimal(str(model["pricing"]["completion"])) or None
    except (KeyError, TypeError, InvalidOperation):
        return None


async def _ask(method: str, url: str, headers: dict[str, str], body: object = None) -> HttpAnswer:
    try:
        return await http(method, url, headers=headers, body=body, timeout_s=REQUEST_TIMEOUT_S)
    except OSError as error:
        raise StackError(f"The meter API at {url} does not answer: {error}.") from error


def _require(answer: HttpAnswer, what: str, statuses: set[int]) -> dict[str, Any]:
    if answer.status not in statuses:
        problem = answer.body[:300].decode(errors="replace")
        raise StackError(f"The meter API refused to {what}: {answer.status} {problem}")
    document = answer.json()
    return document if isinstance(document, dict) else {}
