"""A authz of a test's own on the books of the shared stack, and Envoys of any configuration."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.e2e.admin import Admin
from tests.e2e.raw_http import send
from tests.e2e.running_stack import wait_until
from tollkeeper import envoy_config
from tollkeeper.stack.home import locate
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.servers.postgres import DATABASE, SERVICE_ROLE

ENVOY_FOLDER = envoy_config.TEMPLATE.parent
EXT_AUTHZ = "envoy.filters.http.ext_authz"
WHOLE_BODY_CHECK = "tollkeeper.whole_body_check"
# A proxy of ours, beside the Envoy that asks over HTTP from 127.0.0.1; clients come from others.
TRUSTED_PROXY = "127.0.0.9"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuthzProcess:
    """One running authz: checks over gRPC and HTTP, both over Unix sockets and HTTP over TCP."""

    folder: Path
    admin: Admin
    process: "subprocess.Popen[bytes]"
    http_port: int

    @property
    def grpc(self) -> Path:
        """The address at which it answers gRPC checks."""
        return self.folder / "authz.sock"

    @property
    def health(self) -> Path:
        """The address at which it says how it is."""
        return self.folder / "health.sock"

    @property
    def http(self) -> str:
        """The address at which it answers HTTP checks."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        """Return the text that it has written so far."""
        return (self.folder / "log").read_text()

    def counted(self, outcome: str, code: str) -> float:
        """Return how often it has decided so."""
        return self.sample(f'decisions_total{{code="{code}",outcome="{outcome}"}}')

    def sample(self, name: str) -> float:
        """A sample of its metrics by name and labels, without the common prefix; 0 if absent."""
        metrics = send("http://authz", "GET", "/metrics", unix_socket=self.health).body.decode()
        start = f"tollkeeper_authz_{name} "
        found = [line for line in metrics.splitlines() if line.startswith(start)]
        return float(found[0].removeprefix(start)) if found else 0.0


def _environment(
    admin: Admin, folder: Path, http_port: int, changes: dict[str, str]
) -> dict[str, str]:
    home = locate(admin.stack.home)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOLLKEEPER_")}
    return kept | {
        "TOLLKEEPER_DATABASE_URL": f"postgresql://{SERVICE_ROLE}@/{DATABASE}?host={home.run}/pg",
        "TOLLKEEPER_REDIS_URL": f"unix://{home.run}/redis.sock",
        "TOLLKEEPER_MASTER_KEY_FILE": str(home.master_key),
        "TOLLKEEPER_AUTHZ_LISTEN": f"unix:{folder}/authz.sock",
        "TOLLKEEPER_AUTHZ_HEALTH_LISTEN": f"unix:{folder}/health.sock",
        "TOLLKEEPER_AUTHZ_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "TOLLKEEPER_TRUSTED_PROXIES": f"127.0.0.1/32,{TRUSTED_PROXY}/32",
        **changes,
    }


@contextlib.contextmanager
def authz_running(admin: Admin, folder: Path, **changes: str) -> Iterator[AuthzProcess]:
    """An authz that is ready inside the block."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "authz"],
            env=_environment(admin, folder, port, changes),
            stderr=log,
        )
    authz = AuthzProcess(folder, admin, process, port)

    def is_ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"authz ended:\n{authz.log}")
        with contextlib.suppress(OSError):
            return send("http://a", "GET", "/readyz", unix_socket=authz.health).status == 200
        return False

    try:
        wait_until(is_ready, "the authz is ready")
        yield authz
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def envoy_running(document: Document, folder: Path) -> Iterator[None]:
    """A real Envoy with this configuration, listening inside the block."""
    config = folder / "envoy.yaml"
    config.write_text(yaml.safe_dump(document))
    ports = [
        one["address"]["socket_address"]["port_value"]
        for one in document["static_resources"]["listeners"]
    ]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(envoy_config.command(config, 1), stdout=log, stderr=log)

    def listens() -> bool:
        if process.poll() is not None:
            raise RuntimeError((folder / "envoy.log").read_text())
        with contextlib.suppress(OSError):
            for port in ports:
                connection = socket.create_connection(("127.0.0.1", port), 1)
                connection.close()
            return True
        return False

    try:
        wait_until(listens, "Envoy listens")
        yield
    finally:
        process.kill()
        process.wait()


def snippet(name: str) -> Document:
    """A YAML file of the folder `envoy/`."""
    document: Document = yaml.safe_load((ENVOY_FOLDER / name).read_text())
    return document


def manager_of(listener: Document) -> Document:
    """The connection manager of a listener's first filter chain."""
    manager: Document = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def put_filter(manager: Document, made: Document) -> None:
    """Put a filter into the place of its namesake."""
    filters = manager["http_filters"]
    at = next(i for i, one in enumerate(filters) if one["name"] == made["name"])
    filters[at] = made


def cluster_at(name: str, address: str, *, is_http2: bool = False) -> Document:
    """A cluster of one endpoint at `unix:/path` or `host:port`."""
    where = (
        {"pipe": {"path": address.removeprefix("unix:")}}
        if address.startswith("unix:")
        else {
            "socket_address": {
                "address": address.partition(":")[0],
                "port_value": int(address.partition(":")[2]),
            }
        }
    )
    made: Document = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
        },
    }
    if is_http2:
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        made["typed_extension_protocol_options"] = {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return made


def point(document: Document, authz: AuthzProcess, folder: Path) -> int:
    """Put a test's addresses into a configuration of one listener; the port it listens on."""
    (listener,) = document["static_resources"]["listeners"]
    port = free_port()
    listener["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    simulator = urlsplit(authz.admin.stack.simulator)
    ingest = locate(authz.admin.stack.home).run / "ingest.sock"
    document["static_resources"]["clusters"] = [
        cluster_at("authz", f"unix:{authz.grpc}", is_http2=True),
        cluster_at("authz_bodies", f"unix:{authz.grpc}", is_http2=True),
        cluster_at("ingest", f"unix:{ingest}", is_http2=True),
        cluster_at("provider", simulator.netloc),
        cluster_at("meter_api", urlsplit(authz.admin.stack.api).netloc),
        cluster_at("authz_http", f"127.0.0.1:{authz.http_port}"),
    ]
    document.pop("admin", None)
    document.pop("dynamic_resources", None)
    document.pop("overload_manager", None)
    manager = manager_of(listener)
    for log in manager["access_log"]:
        if "path" in log["typed_config"]:
            log["typed_config"]["path"] = str(folder / f"{port}.jsonl")
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            action = route.get("route", {})
            if action.get("cluster") == "provider":
                # The simulator is known by its address: there is no name to rewrite to.
                action.pop("auto_host_rewrite", None)
                action["host_rewrite_literal"] = simulator.netloc
    return port
