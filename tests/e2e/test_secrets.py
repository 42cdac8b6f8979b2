"""Planted secrets are found nowhere but where they belong."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.admin import Admin, Customer, chat
from tests.e2e.raw_http import JSON, Reply, send, send_json
from tests.e2e.running_stack import wait_until
from tollkeeper.stack.home import locate

CHAT = "/v1/chat/completions"
# The four that hold one secret each, for those who may have it.
VAULTS = ("master.key", "operator.token", "demo.key", "simulator/provider.key")


def secret_part(key: str) -> str:
    """Return the part of an API key that is not public: everything behind its id."""
    return key.split("-", 2)[2]


def secrets_of(admin: Admin, *keys: str) -> dict[str, str]:
    """Every secret of the stack by name, and these keys."""
    found = {name: (admin.stack.home / name).read_text().strip() for name in VAULTS}
    found["demo.key"] = secret_part(found["demo.key"])
    return found | {f"key {number}": secret_part(key) for number, key in enumerate(keys)}


def disguises(secret: str) -> set[bytes]:
    """The secret as it is, and as dumps and logs might show it."""
    plain = secret.encode()
    shown = {plain, plain.hex().encode(), base64.b64encode(plain).rstrip(b"=")[:-1]}
    if len(secret) == 64:
        with_bytes = bytes.fromhex(secret)
        shown |= {with_bytes, base64.b64encode(with_bytes).rstrip(b"=")[:-1]}
    return shown


def found_in(content: bytes, secrets: dict[str, str]) -> list[str]:
    """The names of the secrets that `content` gives away."""
    return [
        name
        for name, secret in secrets.items()
        if any(disguise in content for disguise in disguises(secret))
    ]


def mishaps(admin: Admin, customer: Customer, revoked: Customer) -> Iterator[Reply]:
    """Requests that go wrong with a secret in hand, everywhere a client can put one."""
    gateway, key = admin.stack.gateway, customer.key
    good = json.dumps(chat()).encode()
    bearer = [customer.bearer, JSON]
    yield admin.ask(revoked)
    yield admin.ask(customer, max_tokens=key)
    yield admin.ask(customer, [("Authorization", f"Bearer {revoked.key}")])
    yield admin.ask(customer, [("x-api-key", revoked.key)])
    yield send(gateway, "POST", f"{CHAT}?key={key}", bearer, good)
    yield send(gateway, "POST", CHAT, bearer, b'{"' + key.encode())
    yield send(gateway, "POST", CHAT, [("Authorization", key[:-1] + "!"), JSON], good)
    yield send(gateway, "POST", CHAT, [("Authorization", f"Basic {key}"), JSON], good)
    yield send(gateway, "GET", f"/api/v1/usage?from={key}", [customer.bearer])
    yield send(gateway, "GET", "/api/v1/admin/users", [customer.bearer])
    operator = ("Authorization", f"Bearer {admin.stack.operator_token}")
    yield send(gateway, "POST", CHAT, [operator, JSON], good)
    yield send_json(gateway, "POST", "/api/v1/admin/users", {"email": key}, [operator])
    yield send_json(gateway, "GET", "/api/v1/admin/users/nobody", None, [operator])
    for status in (401, 402, 429, 500):
        admin.misbehave(status=status, times=1)
        yield admin.ask(customer)


def files_of(admin: Admin) -> list[Path]:
    """Return all that is kept, the vaults aside."""
    home = admin.stack.home
    vaults = {home / name for name in VAULTS}
    return [path for path in home.rglob("*") if path.is_file() and path not in vaults]


def dump(admin: Admin) -> bytes:
    """All rows of all tables as text."""
    tables = admin.rows(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert len(tables) >= 10
    lines = [
        row["line"]
        for table in tables
        for row in admin.rows(f"SELECT t::text AS line FROM {table['name']} t")
    ]
    return "\n".join(lines).encode()


def metrics(admin: Admin) -> dict[str, bytes]:
    """Return the metrics of both services."""
    health = locate(admin.stack.home).run / "authz-health.sock"
    return {
        "meter": send(admin.stack.api, "GET", "/metrics").body,
        "authz": send("http://authz", "GET", "/metrics", unix_socket=health).body,
    }


def command_lines(admin: Admin) -> bytes:
    """Return the command lines of every process of the stack, as `ps` shows them."""
    supervisor = psutil.Process(admin.stack.supervisor_pid)
    everybody = [supervisor, *supervisor.children(recursive=True)]
    return "\n".join(" ".join(process.cmdline()) for process in everybody).encode()


@pytest.fixture
def after_mishaps(admin: Admin) -> tuple[dict[str, str], list[Reply]]:
    """The secrets that were about, and every answer that was given meanwhile."""
    customer, revoked = admin.open_account(), admin.open_account()
    admin.call("DELETE", f"users/{revoked.id}/api-keys/{revoked.key_id}")
    answers = [admin.ask(customer), admin.ask(customer, stream=True)]
    answers += mishaps(admin, customer, revoked)
    # A client is told which model it asked for, whatever it was; nobody else is.
    assert admin.ask(customer, model=customer.key).status == 404
    admin.wait_settled(customer)
    log = admin.stack.home / "envoy" / "access.jsonl"
    wait_until(lambda: customer.id.encode() in log.read_bytes(), "the log is written")
    return secrets_of(admin, customer.key, revoked.key), answers


def test_no_secret_is_where_it_should_not_be(
    admin: Admin, after_mishaps: tuple[dict[str, str], list[Reply]]
) -> None:
    secrets, answers = after_mishaps
    assert len(secrets) == 6
    assert {200, 400, 401, 404, 429, 500, 503} <= {answer.status for answer in answers}
    for answer in answers:
        shown = answer.body + str(answer.headers).encode()
        assert found_in(shown, secrets) == [], shown
    for path in files_of(admin):
        assert found_in(path.read_bytes(), secrets) == [], path
    for name, text in metrics(admin).items():
        assert b"tollkeeper_" in text
        assert found_in(text, secrets) == [], name
    assert found_in(command_lines(admin), secrets) == []
    assert found_in(dump(admin), secrets) == []


def test_the_search_would_find_them(admin: Admin) -> None:
    """A search that has never found anything proves nothing."""
    customer = admin.open_account()
    secrets = secrets_of(admin, customer.key)
    for name, secret in secrets.items():
        for disguise in disguises(secret):
            assert name in found_in(b"before " + disguise + b" after", secrets)
    assert customer.key_id.encode() in dump(admin)
    looked_at = {path.relative_to(admin.stack.home).parts[0] for path in files_of(admin)}
    assert {"logs", "envoy", "postgres", "simulator"} <= looked_at
    assert {"authz.log", "meter.log", "envoy.log"} <= {path.name for path in files_of(admin)}
