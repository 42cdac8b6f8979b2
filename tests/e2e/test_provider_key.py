"""A provider's key that does not work is refused, or seen by whoever looks after the gateway."""

import base64
import json

from tests.e2e.admin import MODEL, Admin, chat
from tests.e2e.raw_http import JSON, send, send_json
from tests.e2e.running_stack import wait_until
from tollkeeper.stack.home import locate

KEY = "/api/v1/admin/providers/openrouter/key"
NONSENSE = "sk-or-v1-nonsense-that-no-provider-knows"


def readiness(admin: Admin, component: str) -> dict[str, object]:
    """The answers of /readyz about the provider's key."""
    if component == "authz":
        socket = locate(admin.stack.home).run / "authz-health.sock"
        found = send("http://authz", "GET", "/readyz", [], None, socket)
    else:
        found = send(admin.stack.api, "GET", "/readyz", [])
    assert found.status == 200
    answer: dict[str, object] = found.json()["components"]["provider_key"]
    return answer


def test_a_key_that_the_provider_refuses_is_not_stored(admin: Admin) -> None:
    bearer = [("Authorization", f"Bearer {admin.stack.operator_token}")]
    refused = send_json(admin.stack.api, "PUT", KEY, {"key": NONSENSE}, bearer)
    assert (refused.status, refused.json()["code"]) == (422, "provider_key_refused")
    assert admin.ask(admin.open_account()).status == 200


def test_a_key_that_does_not_work_shows_everywhere(admin: Admin) -> None:
    customer = admin.open_account()
    admin.is_key_doubted = True
    admin.call("PUT", "providers/openrouter/key", {"key": NONSENSE, "force": True})
    wait_until(lambda: not admin.stack.status()["is_healthy"], "status is red")
    (problem,) = admin.stack.status()["problems"]
    assert "401" in problem
    assert "tollkeeper providers set-key openrouter" in problem
    assert NONSENSE not in problem
    wait_until(lambda: readiness(admin, "authz")["status"] == "refused", "authz says so")
    assert "401" in str(readiness(admin, "meter")["reason"])
    wait_until(lambda: admin.ask(customer).status == 503, "requests are refused")

    document = {"method": "POST", "path": "/v1/chat/completions"}
    headers = [list(JSON), list(customer.bearer)]
    body = base64.b64encode(json.dumps(chat(model=MODEL)).encode()).decode()
    socket = locate(admin.stack.home).run / "authz-health.sock"
    asked = json.dumps({**document, "headers": headers, "body_base64": body}).encode()
    explained = send("http://authz", "POST", "/explain", [JSON], asked, socket).json()
    assert explained["verdict"] == "allow"
    (warning,) = explained["warnings"]
    assert "401" in warning
