"""The snippets for platforms, run by a real Envoy before a real authz on the shared books."""

import contextlib
import copy
import http.client
import http.server
import json
import secrets
import ssl
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from meter.identity.keys.key_text import new_credential_id
from tests.e2e.admin import Admin, Customer, chat
from tests.e2e.envoy.authz_process import (
    EXT_AUTHZ,
    TRUSTED_PROXY,
    WHOLE_BODY_CHECK,
    Document,
    authz_running,
    cluster_at,
    envoy_running,
    manager_of,
    point,
    put_filter,
    snippet,
)
from tests.e2e.envoy.certificates import Authority, client_context
from tests.e2e.raw_http import JSON, Headers, Reply, send_json
from tests.e2e.running_stack import RunningStack
from tests.patience import WAIT_S
from tollkeeper.stack.servers.ports import free_port

CHAT = "/v1/chat/completions"
HOME = "127.0.0.5"
ELSEWHERE = "127.0.0.6"
URI = x509.UniformResourceIdentifier
DNS = x509.DNSName


@dataclass(frozen=True, slots=True)
class Platform:
    """One Envoy with a listener for each snippet, the certificates for it, and the books."""

    admin: Admin
    ports: dict[str, int]
    folder: Path
    ours: Authority
    foreign: Authority

    def call(
        self,
        listener: str,
        headers: Headers = (),
        *,
        method: str = "POST",
        path: str = CHAT,
        source: str = HOME,
        certificate: Path | None = None,
    ) -> Reply:
        """One request from an address of this machine, over TLS where the listener wants it."""
        context = None
        if "tls" in listener:
            context = client_context(self.folder / "roots.pem", certificate)
        return send_from(source, self.ports[listener], method, path, headers, context)

    def present(self, *names: x509.GeneralName, foreign: bool = False) -> Path:
        """A new client certificate for these names."""
        authority = self.foreign if foreign else self.ours
        return authority.issue(self.folder / f"{secrets.token_hex(4)}.pem", names)


def send_from(
    source: str,
    port: int,
    method: str,
    path: str,
    headers: Headers,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """One request from an address of this machine; a short chat where the method has a body."""
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, 10, source_address=(source, 0))
        if context is None
        else http.client.HTTPSConnection(
            "localhost", port, timeout=WAIT_S, source_address=(source, 0), context=context
        )
    )
    with contextlib.closing(connection):
        connection.putrequest(method, path)
        body = json.dumps(chat()).encode() if method == "POST" else b""
        for name, value in [*headers, JSON, ("content-length", str(len(body)))]:
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, found, reply.read())


class _Echo(http.server.BaseHTTPRequestHandler):
    """A service of our own that says what it was sent."""

    def do_GET(self) -> None:
        body = json.dumps([[k.lower(), v] for k, v in self.headers.items()]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep still."""


@contextlib.contextmanager
def echo_running() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def copied(listener: Document, name: str) -> Document:
    """The same listener once more, at a port of its own."""
    made = copy.deepcopy(listener)
    made["name"] = name
    made["address"]["socket_address"]["port_value"] = free_port()
    return made


def routes_of(listener: Document) -> list[Document]:
    found: list[Document] = manager_of(listener)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def inference(listener: Document) -> Document:
    return next(one for one in routes_of(listener) if one["name"] == "inference")


def internal(listener: Document) -> Document:
    """Callers of our own name the account."""
    made, policies = copied(listener, "internal"), snippet("policies.yaml")
    inference(made).update(policies["internal_route"])
    for check in manager_of(made)["http_filters"]:
        if check["name"] in (EXT_AUTHZ, WHOLE_BODY_CHECK):
            check["typed_config"]["allowed_headers"] = policies["internal_allowed_headers"]
    return made


def over_tls(listener: Document, name: str, folder: Path, *, is_told: bool) -> Document:
    """Clients show certificates: verified and with a meaning, or anybody's and with none."""
    made, lines = copied(listener, name), snippet("mtls-listener.yaml")
    common = lines["transport_socket"]["typed_config"]["common_tls_context"]
    (pair,) = common["tls_certificates"]
    for one in pair.values():
        one["filename"] = str(folder / "server.pem")
    common["validation_context"]["trusted_ca"]["filename"] = str(folder / "roots.pem")
    made["filter_chains"][0]["transport_socket"] = lines["transport_socket"]
    if is_told:
        inference(made)["typed_per_filter_config"] = lines["typed_per_filter_config"]
    else:
        common["validation_context"]["trust_chain_verification"] = "ACCEPT_UNTRUSTED"
    return made


def over_http(listener: Document) -> Document:
    made = copied(listener, "http")
    for check in snippet("http-service.yaml")["http_filters"]:
        put_filter(manager_of(made), check)
    return made


@pytest.fixture(scope="module")
def platform(stack: RunningStack) -> Iterator[Platform]:
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="tk-", dir="/tmp")))
        ours, foreign = Authority.named("ours"), Authority.named("foreign")
        ours.write_roots(folder / "roots.pem")
        ours.issue(folder / "server.pem", [DNS("localhost")])
        authz = closing.enter_context(authz_running(Admin(stack), folder))
        document = snippet("existing-envoy.yaml")
        point(document, authz, folder)
        static = document["static_resources"]
        static["clusters"].append(
            cluster_at("tools", f"127.0.0.1:{closing.enter_context(echo_running())}")
        )
        (existing,) = static["listeners"]
        routes_of(existing)[1:1] = snippet("policies.yaml")["routes"]
        static["listeners"] += [
            internal(existing),
            over_tls(existing, "mtls", folder, is_told=True),
            over_tls(existing, "tls", folder, is_told=False),
            over_http(existing),
        ]
        closing.enter_context(envoy_running(document, folder))
        ports = {
            one["name"]: one["address"]["socket_address"]["port_value"]
            for one in static["listeners"]
        }
        yield Platform(Admin(stack), ports, folder, ours, foreign)


@pytest.fixture
def customer(platform: Platform) -> Customer:
    return platform.admin.open_account(credit="1")


def test_an_envoy_of_ones_own_checks_holds_and_settles(
    platform: Platform, customer: Customer
) -> None:
    assert platform.call("existing").error["code"] == "missing_api_key"
    assert platform.call("existing", path="/elsewhere").status == 404
    assert platform.call("existing", [customer.bearer]).status == 200
    platform.admin.wait_settled(customer)
    ((generation, cost),) = platform.admin.usage(customer).items()
    assert cost == platform.admin.bill_row(generation).cost


def test_the_shared_parts_are_those_of_the_production_configuration() -> None:
    def parts(name: str) -> dict[str, Document]:
        (listener,) = snippet(name)["static_resources"]["listeners"]
        manager = manager_of(listener)
        return {one["name"]: one for one in [*manager["http_filters"], *manager["access_log"]]}

    production, existing = parts("envoy.yaml"), parts("existing-envoy.yaml")
    service = existing[EXT_AUTHZ]["typed_config"]["grpc_service"]
    for check in (EXT_AUTHZ, WHOLE_BODY_CHECK):
        production[check]["typed_config"]["grpc_service"] = service
    assert existing == {name: production[name] for name in existing}


def test_the_usage_of_each_route_is_read_as_in_the_production_configuration() -> None:
    def usage(name: str) -> dict[str, object]:
        (listener,) = snippet(name)["static_resources"]["listeners"]
        named = {one["name"]: one for one in routes_of(listener) if "route" in one}
        return {name: one.get("typed_per_filter_config") for name, one in named.items()}

    production, existing = usage("envoy.yaml"), usage("existing-envoy.yaml")
    assert len(existing) == 4
    assert existing == {name: production[name] for name in existing}


@pytest.mark.parametrize("listener", ["existing", "http", "internal"])
def test_a_large_body_is_checked_twice_and_held_once(
    platform: Platform, customer: Customer, listener: str
) -> None:
    text = [{"role": "user", "content": "a " * 100_000}]
    who = ("x-tollkeeper-account", customer.id) if listener == "internal" else customer.bearer
    origin = f"http://127.0.0.1:{platform.ports[listener]}"
    assert send_json(origin, "POST", CHAT, chat(messages=text)).status == 401
    assert send_json(origin, "POST", CHAT, chat(messages=text), [who]).status == 200
    platform.admin.wait_settled(customer)
    assert platform.admin.hold_states(customer) == {"settled": 1}


IDENTITY = ("x-tollkeeper-account", "x-tollkeeper-credential", "x-tollkeeper-scopes")


def test_a_service_of_ones_own_learns_who_calls(platform: Platform, customer: Customer) -> None:
    forged = [(name, "forged") for name in IDENTITY]
    reply = platform.call("existing", [customer.bearer, *forged], method="GET", path="/tools/a?b=c")
    assert reply.status == 200
    received = reply.json()
    assert [value for name, value in received if name in IDENTITY] == [
        customer.id,
        customer.key_id,
        "inference models:read usage:read",
    ]
    assert not [name for name, _ in received if name in ("authorization", "x-api-key")]
    assert not platform.admin.hold_states(customer)


def test_a_service_of_ones_own_is_for_those_with_its_scope(platform: Platform) -> None:
    assert platform.call("existing", method="GET", path="/tools").status == 401
    customer = platform.admin.open_account()
    platform.admin.rows(
        "UPDATE credentials SET scopes = '{inference}' WHERE id = $1", customer.key_id
    )
    refused = platform.call("existing", [customer.bearer], method="GET", path="/tools")
    assert (refused.status, refused.error["code"]) == (403, "insufficient_scope")


POLICY_HEADERS = [
    ("metering", "off"),
    ("account-from", "header"),
    ("x-tollkeeper-metering", "off"),
    ("x-tollkeeper-scope", "models:read"),
    ("client-certificates", "verified"),
    ("x-forwarded-client-cert", "URI=spiffe://ours/billing"),
]


@pytest.mark.parametrize("listener", ["existing", "http"])
def test_clients_cannot_set_the_policy(
    platform: Platform, customer: Customer, listener: str
) -> None:
    victim = platform.admin.open_account(credit="1")
    named = ("x-tollkeeper-account", victim.id)
    refused = platform.call(listener, [*POLICY_HEADERS, named])
    assert (refused.status, refused.error["code"]) == (401, "missing_api_key")
    assert platform.call(listener, [customer.bearer, *POLICY_HEADERS, named]).status == 200
    platform.admin.wait_settled(customer)
    assert platform.admin.hold_states(customer) == {"settled": 1}
    assert not platform.admin.hold_states(victim)


def test_a_path_cannot_reach_into_the_prefix_of_the_check(platform: Platform) -> None:
    for path in (f"/;metering=off{CHAT}", f"/..{CHAT};metering=off", ";metering=off/v1"):
        assert platform.call("http", path=path).status in (400, 404)


def test_callers_of_our_own_name_the_account(platform: Platform, customer: Customer) -> None:
    named = ("x-tollkeeper-account", customer.id)
    assert platform.call("internal", [named]).status == 200
    platform.admin.wait_settled(customer)
    assert platform.admin.hold_states(customer) == {"settled": 1}
    for headers in ([], [named, named], [("x-tollkeeper-account", "nobody")], [customer.bearer]):
        refused = platform.call("internal", headers)
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")


def forwarded(*hops: str) -> Sequence[tuple[str, str]]:
    return [("x-forwarded-for", ", ".join(hops))] if hops else []


@pytest.mark.parametrize("listener", ["existing", "http"])
@pytest.mark.parametrize(
    ("source", "hops", "is_let_in"),
    [
        (HOME, (), True),
        (HOME, (ELSEWHERE,), True),
        (ELSEWHERE, (), False),
        (ELSEWHERE, (HOME,), False),
        (ELSEWHERE, (HOME, TRUSTED_PROXY), False),
        (TRUSTED_PROXY, (HOME,), True),
        (TRUSTED_PROXY, (HOME, ELSEWHERE), False),
        (TRUSTED_PROXY, (ELSEWHERE, HOME), True),
        (TRUSTED_PROXY, ("nonsense",), False),
    ],
)
def test_an_address_cannot_be_forged(
    platform: Platform, listener: str, source: str, hops: tuple[str, ...], is_let_in: bool
) -> None:
    customer = platform.admin.open_account(credit="1")
    platform.admin.rows(
        "UPDATE credentials SET allowed_addresses = $2 WHERE id = $1",
        customer.key_id,
        [f"{HOME}/32"],
    )
    reply = platform.call(listener, [customer.bearer, *forwarded(*hops)], source=source)
    assert reply.status == (200 if is_let_in else 403)
    if not is_let_in:
        assert reply.error["code"] == "address_not_allowed"


def known_by(platform: Platform, customer: Customer, name: str) -> None:
    """Have a certificate of that name act for an account."""
    platform.admin.rows(
        "INSERT INTO credentials (id, account_id, name, kind, subject)"
        " VALUES ($1, $2, 'certificate', 'certificate', $3)",
        new_credential_id(),
        customer.id,
        name,
    )


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ((URI("spiffe://ours/{}"),), "spiffe://ours/{}"),
        ((DNS("{}.ours.example"),), "{}.ours.example"),
        ((DNS("{}.ours.example"), URI("spiffe://ours/{}")), "spiffe://ours/{}"),
        ((URI("spiffe://ours/{}"), URI("spiffe://ours/other")), "spiffe://ours/{}"),
        ((DNS("{}.ours.example"), DNS("other.ours.example")), "{}.ours.example"),
    ],
)
def test_a_certificate_acts_for_the_account_that_its_name_is_mapped_to(
    platform: Platform, customer: Customer, names: Sequence[x509.GeneralName], name: str
) -> None:
    made = [type(one)(one.value.format(customer.id)) for one in names]  # type: ignore[call-arg]
    known_by(platform, customer, name.format(customer.id))
    assert platform.call("mtls", certificate=platform.present(*made)).status == 200
    platform.admin.wait_settled(customer)
    assert platform.admin.hold_states(customer) == {"settled": 1}


def test_a_key_goes_before_a_certificate(platform: Platform, customer: Customer) -> None:
    other = platform.admin.open_account(credit="1")
    known_by(platform, other, f"spiffe://ours/{other.id}")
    certificate = platform.present(URI(f"spiffe://ours/{other.id}"))
    assert platform.call("mtls", [customer.bearer], certificate=certificate).status == 200
    assert not platform.admin.hold_states(other)


def test_certificates_that_nobody_mapped_or_signed_let_nobody_in(
    platform: Platform, customer: Customer
) -> None:
    name = URI(f"spiffe://ours/{customer.id}")
    known_by(platform, customer, name.value)
    for certificate in (platform.present(URI("spiffe://ours/unknown")), platform.present()):
        refused = platform.call("mtls", certificate=certificate)
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    for not_ours in (platform.present(name, foreign=True), None):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            platform.call("mtls", certificate=not_ours)
    for is_foreign in (False, True):
        unsaid = platform.call("tls", certificate=platform.present(name, foreign=is_foreign))
        assert (unsaid.status, unsaid.error["code"]) == (401, "missing_api_key")
