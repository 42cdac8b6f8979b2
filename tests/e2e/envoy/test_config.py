"""The template points where it is told, and Envoy accepts the result."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from meter.ingest.access_logs import AccessLogs
from tollkeeper.envoy_config import (
    FILE_LOGGERS,
    STREAM_LOGGER,
    TEMPLATE,
    EnvoyAddresses,
    EnvoyConfigError,
    command,
    rendered,
    validate,
    write,
)


@pytest.fixture
def addresses(tmp_path: Path) -> EnvoyAddresses:
    return EnvoyAddresses(
        listen="127.0.0.1:18080",
        authz="unix:/tmp/tk/authz.sock",
        ingest="unix:/tmp/tk/ingest.sock",
        meter_api="127.0.0.1:18081",
        provider_base_url="https://openrouter.ai/api/v1",
        access_log=tmp_path / "access.jsonl",
        admin_socket=tmp_path / "admin.sock",
        authz_health="unix:/tmp/tk/authz-health.sock",
        clusters_file=tmp_path / "clusters" / "clusters.json",
    )


def loggers(document: dict[str, Any]) -> set[str]:
    (listener,) = document["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return {log["name"] for log in manager["access_log"]}


def cluster(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = next(c for c in document["static_resources"]["clusters"] if c["name"] == name)
    return dict(found)


def render(addresses: EnvoyAddresses) -> dict[str, Any]:
    return rendered(yaml.safe_load(TEMPLATE.read_text()), addresses)


@pytest.mark.parametrize(
    "base_url",
    [
        "https://openrouter.ai/api/v1",
        "https://192.0.2.1:8443/v1",
        "http://127.0.0.1:9999/api/v1",
        "http://localhost:9999",
        "http://[::1]:9999/api/v1/",
    ],
)
def test_envoy_accepts_what_is_written(
    addresses: EnvoyAddresses, tmp_path: Path, base_url: str
) -> None:
    write(replace(addresses, provider_base_url=base_url), tmp_path / "envoy.yaml")
    validate(tmp_path / "envoy.yaml")


def test_envoys_refusal_is_an_error(addresses: EnvoyAddresses, tmp_path: Path) -> None:
    (tmp_path / "envoy.yaml").write_text("static_resources: {listeners: [{name: 1, nope: 2}]}")
    with pytest.raises(EnvoyConfigError, match="nope"):
        validate(tmp_path / "envoy.yaml")


def test_https_verifies_the_providers_name(addresses: EnvoyAddresses) -> None:
    url = "https://llm.example.org/openai/v1/"
    document = render(replace(addresses, provider_base_url=url))
    tls = cluster(document, "provider")["transport_socket"]["typed_config"]
    validation = tls["common_tls_context"]["validation_context"]
    assert tls["sni"] == "llm.example.org"
    assert Path(validation["trusted_ca"]["filename"]).is_file()
    assert validation["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "llm.example.org"}}
    ]
    assert r"substitution: /openai/v1/\1" in yaml.dump(document)


def test_plain_http_is_for_loopback_only(addresses: EnvoyAddresses) -> None:
    document = render(replace(addresses, provider_base_url="http://127.0.0.1:1/api/v1"))
    assert "transport_socket" not in cluster(document, "provider")
    with pytest.raises(EnvoyConfigError, match="loopback"):
        render(replace(addresses, provider_base_url="http://llm.example.org/v1"))


@pytest.mark.parametrize(
    "base_url",
    ["ftp://x/v1", "openrouter.ai", "https://u:p@x/v1", "https://x/v1?a=b", "https:///v1"],
)
def test_odd_base_urls_are_refused(addresses: EnvoyAddresses, base_url: str) -> None:
    with pytest.raises(EnvoyConfigError) as refusal:
        render(replace(addresses, provider_base_url=base_url))
    assert "u:p" not in str(refusal.value)


@pytest.mark.parametrize(
    "origins",
    [
        "app.example.com",
        "https://app.example.com/",
        "https://u@app.example.com",
        "https://App.example.com",
        "https://a.example.com,",
        "https://",
        "null",
        "https://[",
    ],
)
def test_what_is_no_origin_is_refused(addresses: EnvoyAddresses, origins: str) -> None:
    with pytest.raises(EnvoyConfigError, match="origin"):
        render(replace(addresses, cors_origins=origins))


@pytest.mark.parametrize("origins", ["*", "https://a.example.com, http://localhost:3000"])
def test_origins_are_put_on_the_virtual_host(
    addresses: EnvoyAddresses, tmp_path: Path, origins: str
) -> None:
    write(replace(addresses, cors_origins=origins), tmp_path / "envoy.yaml")
    validate(tmp_path / "envoy.yaml")
    assert "CorsPolicy" in (tmp_path / "envoy.yaml").read_text()
    assert "CorsPolicy" not in yaml.dump(render(addresses))


def test_names_are_resolved_and_addresses_are_not(addresses: EnvoyAddresses) -> None:
    names: dict[str, Any] = {
        "authz": "authz:9001",
        "authz_health": "authz:9002",
        "ingest": "meter:8082",
    }
    document = render(replace(addresses, meter_api="meter:8081", **names))
    for name, port, health_port in (("authz", 9001, 9002), ("ingest", 8082, 8081)):
        found = cluster(document, name)
        assert (found["type"], found["dns_lookup_family"]) == ("STRICT_DNS", "V4_PREFERRED")
        ((endpoint,),) = [one["lb_endpoints"] for one in found["load_assignment"]["endpoints"]]
        address = endpoint["endpoint"]["address"]["socket_address"]
        assert address["port_value"] == port
        assert endpoint["endpoint"]["health_check_config"] == {"port_value": health_port}
    assert cluster(document, "meter_api")["type"] == "STRICT_DNS"
    assert cluster(render(addresses), "authz")["type"] == "STATIC"


def test_several_instances_are_endpoints_with_a_health_of_their_own(
    addresses: EnvoyAddresses, tmp_path: Path
) -> None:
    several = replace(
        addresses,
        authz="unix:/tmp/tk/a.sock,unix:/tmp/tk/b.sock",
        authz_health="unix:/tmp/tk/ah.sock,unix:/tmp/tk/bh.sock",
        ingest="unix:/tmp/tk/i.sock,unix:/tmp/tk/j.sock",
        meter_api="127.0.0.1:1,127.0.0.1:2",
    )
    write(several, tmp_path / "envoy.yaml")
    validate(tmp_path / "envoy.yaml")
    (group,) = cluster(render(several), "ingest")["load_assignment"]["endpoints"]
    second = group["lb_endpoints"][1]["endpoint"]
    assert second["address"] == {"pipe": {"path": "/tmp/tk/j.sock"}}
    assert second["health_check_config"]["address"]["socket_address"]["port_value"] == 2


def test_whole_bodies_go_to_an_authz_of_their_own_where_there_is_one(
    addresses: EnvoyAddresses, tmp_path: Path
) -> None:
    apart = replace(
        addresses,
        authz_bodies="unix:/tmp/tk/bodies.sock",
        authz_bodies_health="unix:/tmp/tk/bodies-health.sock",
    )
    write(apart, tmp_path / "envoy.yaml")
    validate(tmp_path / "envoy.yaml")

    def place(of: EnvoyAddresses, name: str) -> Any:
        (group,) = cluster(render(of), name)["load_assignment"]["endpoints"]
        return group["lb_endpoints"][0]["endpoint"]["address"]["pipe"]["path"]

    assert place(apart, "authz") == "/tmp/tk/authz.sock"
    assert place(apart, "authz_bodies") == "/tmp/tk/bodies.sock"
    assert place(addresses, "authz_bodies") == "/tmp/tk/authz.sock"


@pytest.mark.parametrize(
    "wrong", [{"authz_health": "unix:/a,unix:/b"}, {"authz_health": "authz:1"}, {"authz": "x:1"}]
)
def test_health_that_does_not_fit_is_refused(
    addresses: EnvoyAddresses, wrong: dict[str, Any]
) -> None:
    with pytest.raises(EnvoyConfigError):
        render(replace(addresses, **wrong))


def test_nobody_is_asked_where_nobody_answers(addresses: EnvoyAddresses) -> None:
    document = render(replace(addresses, authz_health=None))
    assert "health_check" not in yaml.dump(document["static_resources"])


def test_a_check_is_asked_again_only_where_nothing_was_begun() -> None:
    """A second ask may be a second hold; and Envoy takes the longest pause for a time limit."""
    document = yaml.safe_load(TEMPLATE.read_text())
    checks = _members(document["static_resources"]["listeners"], "grpc_service", "timeout")
    asked = {check["envoy_grpc"]["cluster_name"] for check in checks}
    assert asked == {"authz", "authz_bodies"}
    for name in asked:
        (options,) = cluster(document, name)["typed_extension_protocol_options"].values()
        policy = options["retry_policy"]
        assert policy["retry_on"] == "connect-failure,refused-stream"
        timeouts = {check["timeout"] for check in checks}
        assert {policy["retry_back_off"]["max_interval"]} == timeouts == {"2s"}


def _members(document: Any, name: str, having: str) -> list[dict[str, Any]]:
    """Every mapping of that name, at any depth, that has such a member."""
    values = document.values() if isinstance(document, dict) else document
    if not isinstance(document, dict | list):
        return []
    found = [one for value in values for one in _members(value, name, having)]
    here = document.get(name) if isinstance(document, dict) else None
    return [here, *found] if isinstance(here, dict) and having in here else found


def test_only_addresses_paths_and_the_providers_identity_change(
    addresses: EnvoyAddresses,
) -> None:
    template = yaml.safe_load(TEMPLATE.read_text())
    changed = rendered(copy.deepcopy(template), addresses)
    assert sorted(_differences(template, changed)) == [
        "access_log.1.typed_config.path",
        "access_log.2.typed_config.path",
        *["address.pipe.path"] * 5,
        "address.socket_address.address",
        "address.socket_address.address",
        "address.socket_address.port_value",
        "address.socket_address.port_value",
        "address.socket_address.port_value",
        "admin.address.pipe.path",
        "clusters.3.dns_lookup_family",
        "clusters.3.type",
        "dynamic_resources.cds_config.path_config_source.path",
        "dynamic_resources.cds_config.path_config_source.watched_directory.path",
    ]


_TELLING = ("access_log", "admin", "clusters", "dynamic_resources")


def _differences(before: Any, after: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Return where two documents differ, each named from the last telling member on."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return [d for k in keys for d in _differences(before.get(k), after.get(k), (*path, k))]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [d for i, (b, a) in pairs for d in _differences(b, a, (*path, str(i)))]
    if before == after:
        return []
    starts = [i for i, part in enumerate(path) if part in _TELLING]
    if path[-1] != "type" and "address" in path and path[0] != "admin":
        starts = [path.index("address")]
    return [".".join(path[starts[-1] :])]


def test_the_command_flushes_the_log_quickly(tmp_path: Path) -> None:
    line = command(tmp_path / "envoy.yaml", concurrency=2)
    assert line[line.index("--file-flush-interval-msec") + 1] == "100"
    assert line[line.index("--concurrency") + 1] == "2"
    assert Path(line[0]).is_file()


def test_the_template_holds_no_secret() -> None:
    text = TEMPLATE.read_text().lower()
    assert not [word for word in ("bearer ", "sk-or", "password", "secret:") if word in text]


@pytest.mark.parametrize(
    ("logs", "written"),
    [
        (AccessLogs.BOTH, {STREAM_LOGGER, *FILE_LOGGERS}),
        (AccessLogs.STREAM, {STREAM_LOGGER}),
        (AccessLogs.FILE, {*FILE_LOGGERS}),
    ],
)
def test_envoy_writes_the_chosen_logs_and_no_others(
    addresses: EnvoyAddresses, tmp_path: Path, logs: AccessLogs, written: set[str]
) -> None:
    chosen = replace(addresses, access_logs=logs)
    document = render(chosen)
    assert loggers(document) == written
    names = {one["name"] for one in document["static_resources"]["clusters"]}
    # Nobody is asked whether it is well that nothing is sent to.
    assert ("ingest" in names) == logs.has_stream
    write(chosen, tmp_path / "envoy.yaml")
    validate(tmp_path / "envoy.yaml")


def test_an_envoy_of_ones_own_takes_further_providers_as_production_does(tmp_path: Path) -> None:
    folder = TEMPLATE.parent
    document = yaml.safe_load((folder / "existing-envoy.yaml").read_text())
    added = yaml.safe_load((folder / "further-providers.yaml").read_text())
    (listener,) = document["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    (route,) = added.pop("routes")
    inference = next(one for one in host["routes"] if one["name"] == "inference")
    declared = added.pop("inference")
    inference |= declared
    host["routes"].insert(0, route)
    document["static_resources"]["secrets"] = added["static_resources"]["secrets"]
    document["static_resources"]["clusters"] += added["static_resources"]["clusters"]
    for log in manager["access_log"]:
        if "path" in log["typed_config"]:
            log["typed_config"]["path"] = str(tmp_path / "access.jsonl")
    (tmp_path / "envoy.yaml").write_text(yaml.safe_dump({**added, **document}))
    validate(tmp_path / "envoy.yaml")

    production = yaml.safe_load(TEMPLATE.read_text())
    manager = production["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    routes = manager["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
    ours = next(one for one in routes if one["name"] == route["name"])
    assert declared == {
        "metadata": next(one for one in routes if one["name"] == "inference")["metadata"]
    }
    assert ours["route"] == route["route"]
    assert ours["match"]["dynamic_metadata"] == route["match"]["dynamic_metadata"]
    assert added["static_resources"]["secrets"] == production["static_resources"]["secrets"]


def test_without_a_file_envoy_asks_the_meter_for_clusters(addresses: EnvoyAddresses) -> None:
    source = render(replace(addresses, clusters_file=None))["dynamic_resources"]["cds_config"]
    snippet = yaml.safe_load((TEMPLATE.parent / "further-providers.yaml").read_text())
    expected = snippet["dynamic_resources"]["cds_config"]
    expected["api_config_source"]["cluster_names"] = ["meter_api"]
    assert source == expected


def test_an_envoy_without_clusters_is_given_a_file_of_none(
    addresses: EnvoyAddresses, tmp_path: Path
) -> None:
    file = tmp_path / "clusters" / "clusters.json"
    write(addresses, tmp_path / "envoy.yaml")
    validate(tmp_path / "envoy.yaml")
    file.write_text("the last clusters")
    write(addresses, tmp_path / "envoy.yaml")
    assert file.read_text() == "the last clusters"
