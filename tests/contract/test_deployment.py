"""docker-compose.yml, the Dockerfile and deploy/, as far as they can be checked without Docker:
against the compose schema, against the code that they run, and on a real Postgres and Envoy.
"""

import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from pydantic_settings import BaseSettings

from authz.settings import Settings as AuthzSettings
from meter.postgres.migrate import migrate
from meter.settings import MeterSettings, MigrationSettings
from tests import servers
from tests.paths import ROOT
from tests.patience import WAIT_S
from tollkeeper import envoy_config
from tollkeeper.commands.envoy import EnvoySettings
from tollkeeper.commands.health import HealthSettings
from tollkeeper.stack.servers import binaries
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.servers.postgres import SUPERUSER, PostgresServer
from tollkeeper.stack.settings import StackSettings

BIN = Path(sys.executable).parent
# After the drain: the last entries of both logs, and the end of the process.
ENVOY_END_S = 6
OURS = ("migrate", "meter", "authz", "authz-bodies", "envoy")
# What a service's process reads, and then what its health check and the command line read.
REQUIRED: Mapping[str, type[BaseSettings]] = {
    "migrate": MigrationSettings,
    "meter": MeterSettings,
    "authz": AuthzSettings,
    "authz-bodies": AuthzSettings,
    "envoy": EnvoySettings,
}
BESIDE: tuple[type[BaseSettings], ...] = (HealthSettings, StackSettings)
INTERPOLATION = re.compile(r"\$\{([A-Z_]+)(:?[-?][^}]*)?\}")
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|API_KEY|MASTER_KEY|DATABASE_URL")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.fixture(scope="module")
def secrets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that deploy/make-secrets makes."""
    folder = tmp_path_factory.mktemp("deployment") / "secrets"
    _run("sh", str(ROOT / "deploy" / "make-secrets"), str(folder))
    return folder


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """The instructions, each with its arguments on one line."""
    text = (ROOT / "Dockerfile").read_text()
    without_comments = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    lines = without_comments.replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)
    ]


def test_compose_follows_its_schema() -> None:
    _run(
        *(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"),
        str(ROOT / "docker-compose.yml"),
    )


def test_everything_that_a_service_names_is_declared(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        assert set(service["networks"]) <= set(compose["networks"]), name
        assert set(service.get("depends_on", {})) <= set(services), name
        assert _secret_sources(service) <= set(compose["secrets"]), name
        assert _named_volumes(service) <= set(compose["volumes"]), name
        for mount in _bind_mounts(service):
            assert (ROOT / mount["source"]).exists(), name


def test_nothing_is_declared_in_vain(compose: dict[str, Any]) -> None:
    services = compose["services"].values()
    assert set().union(*map(_secret_sources, services)) == set(compose["secrets"])
    assert set().union(*map(_named_volumes, services)) == set(compose["volumes"])
    assert set().union(*(set(service["networks"]) for service in services)) == set(
        compose["networks"]
    )


def test_every_service_is_confined(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service["user"].startswith("0"), name
        assert {"mem_limit", "pids_limit", "restart", "healthcheck"} <= set(service), name


def test_every_lasting_service_has_a_health_check_and_time_to_stop(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name == "migrate":
            continue
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
        assert re.fullmatch(r"\d+s", service["stop_grace_period"]), name


def test_only_the_gateway_is_published_and_on_loopback_by_default(compose: dict[str, Any]) -> None:
    published = {name: one["ports"] for name, one in compose["services"].items() if "ports" in one}
    assert published == {
        "envoy": ["${TOLLKEEPER_ADDRESS:-127.0.0.1}:${TOLLKEEPER_PORT:-8080}:8080"]
    }
    for name, network in compose["networks"].items():
        assert (network or {}).get("internal", False) is (name not in ("outside", "issuers"))
    for name in ("postgres", "redis", "authz", "authz-bodies", "migrate"):
        assert "outside" not in compose["services"][name]["networks"]


def test_who_verifies_jwts_of_others_reaches_their_issuers(compose: dict[str, Any]) -> None:
    networks = {name: set(one["networks"]) for name, one in compose["services"].items()}
    assert [name for name, joined in networks.items() if "issuers" in joined] == [
        "authz",
        "authz-bodies",
    ]
    assert "outside" in networks["meter"]


def test_no_secret_has_a_default_or_stands_in_an_environment(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name, operator in INTERPOLATION.findall(text):
        assert not SECRET_NAME.search(name) or name == "TOLLKEEPER_SECRETS"
        assert (name == "TOLLKEEPER_SECRETS") == operator.startswith(":?"), name
    for service in compose["services"].values():
        for name in service.get("environment", {}):
            assert not SECRET_NAME.search(name) or name.endswith("_FILE")


def test_the_example_names_every_variable_of_compose(compose: dict[str, Any]) -> None:
    used = {name for name, _ in INTERPOLATION.findall((ROOT / "docker-compose.yml").read_text())}
    for service in compose["services"].values():
        # Without a value, compose passes on what .env or the environment says, if it does.
        passed_on = service.get("environment", {}).items()
        used |= {name for name, value in passed_on if value is None}
    example = (ROOT / "deploy" / "env.example").read_text()
    assert set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) == used
    for value in re.findall(r"^[A-Z_]+=(.*)$", example, re.MULTILINE):
        assert value == ""


def test_make_secrets_makes_every_secret_file_once(
    compose: dict[str, Any], secrets_folder: Path
) -> None:
    named = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    before = {path.name: path.read_text() for path in secrets_folder.iterdir()}
    assert set(before) == named
    assert len(set(before.values())) == len(before)
    _run("sh", str(ROOT / "deploy" / "make-secrets"), str(secrets_folder))
    assert {path.name: path.read_text() for path in secrets_folder.iterdir()} == before
    assert secrets_folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", OURS)
def test_a_service_reads_every_variable_it_is_given(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    given = {*service.get("environment", {}), *(s.upper() for s in _setting_secrets(service))}
    assert given <= _variables(REQUIRED[name], *BESIDE)


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_given_every_setting_it_needs(
    compose: dict[str, Any],
    name: str,
    secrets_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = compose["services"][name]
    for variable in [one for one in os.environ if one.startswith("TOLLKEEPER_")]:
        monkeypatch.delenv(variable)
    for variable, value in service.get("environment", {}).items():
        if value is None:
            continue
        monkeypatch.setenv(variable, _interpolated(value))
    for target, source in _setting_secrets(service).items():
        (tmp_path / target).write_text((secrets_folder / source).read_text())
    settings = REQUIRED[name](_secrets_dir=tmp_path)
    for target in _setting_secrets(service):
        value = getattr(settings, target.removeprefix("tollkeeper_")).get_secret_value()
        assert value.startswith("postgresql://tollkeeper_")
        assert value not in repr(settings)


def test_files_that_settings_name_are_mounted_secrets(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        targets = {target for target, _ in _secrets(service)}
        for name, value in service.get("environment", {}).items():
            if name.endswith("_FILE"):
                assert Path(value).parent == Path("/run/secrets")
                assert Path(value).name in targets, name


def test_the_parts_listen_where_the_others_look(compose: dict[str, Any]) -> None:
    environments = {name: compose["services"][name].get("environment", {}) for name in OURS}
    envoy, meter, authz = (environments[name] for name in ("envoy", "meter", "authz"))
    listens = {
        "AUTHZ_ADDRESS": ("authz", authz["TOLLKEEPER_AUTHZ_LISTEN"]),
        "AUTHZ_HEALTH_ADDRESS": ("authz", authz["TOLLKEEPER_AUTHZ_HEALTH_LISTEN"]),
        "AUTHZ_BODIES_ADDRESS": ("authz-bodies", authz["TOLLKEEPER_AUTHZ_LISTEN"]),
        "AUTHZ_BODIES_HEALTH_ADDRESS": ("authz-bodies", authz["TOLLKEEPER_AUTHZ_HEALTH_LISTEN"]),
        "INGEST_ADDRESS": ("meter", meter["TOLLKEEPER_INGEST_LISTEN"]),
        "METER_API_ADDRESS": ("meter", meter["TOLLKEEPER_METER_LISTEN"]),
    }
    for name, (service, listen) in listens.items():
        assert listen.startswith("0.0.0.0:")
        assert envoy[f"TOLLKEEPER_{name}"] == f"{service}:{listen.removeprefix('0.0.0.0:')}"
    assert envoy["TOLLKEEPER_PROVIDER_BASE_URL"] == meter["TOLLKEEPER_PROVIDER_BASE_URL"]
    assert f"unix:{envoy['TOLLKEEPER_ENVOY_ADMIN_SOCKET']}" == meter["TOLLKEEPER_ENVOY_ADMIN"]
    assert envoy["TOLLKEEPER_ENVOY_ACCESS_LOG"] == meter["TOLLKEEPER_ENVOY_ACCESS_LOG"]
    assert compose["services"]["envoy"]["volumes"] == compose["services"]["meter"]["volumes"]


def test_whoever_is_asked_shares_a_network_with_envoy(compose: dict[str, Any]) -> None:
    networks = {name: set(compose["services"][name]["networks"]) for name in OURS}
    assert networks["envoy"] & networks["authz"] == {"checks"}
    assert networks["authz-bodies"] == networks["authz"]
    assert "api" in networks["envoy"] & networks["meter"]
    assert [name for name in compose["services"] if "checks" in networks.get(name, ())] == [
        "authz",
        "authz-bodies",
        "envoy",
    ]


def test_large_bodies_are_read_by_an_authz_of_their_own(compose: dict[str, Any]) -> None:
    checks, bodies = (compose["services"][name] for name in ("authz", "authz-bodies"))
    assert bodies["scale"] == 1
    # Docker's default is 1024.
    assert bodies["cpu_shares"] < 1024
    for name in set(checks) - {"scale", "cpu_shares"}:
        assert bodies[name] == checks[name]


@pytest.mark.parametrize("name", ["authz", "meter"])
def test_a_service_can_have_several_containers(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["scale"] == f"${{TOLLKEEPER_{name.upper()}_INSTANCES:-1}}"
    # A second container of this name or with this port of the host could not start.
    assert not {"container_name", "hostname", "ports"} & set(service)


def test_envoy_has_time_to_drain(compose: dict[str, Any]) -> None:
    envoy = compose["services"]["envoy"]
    drain_s = float(_interpolated(envoy["environment"]["TOLLKEEPER_ENVOY_DRAIN_S"]))
    assert int(envoy["stop_grace_period"].removesuffix("s")) >= drain_s + ENVOY_END_S


@pytest.mark.parametrize("name", OURS)
def test_commands_exist(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    _assert_command_exists(service["command"])
    check = service["healthcheck"]
    if "test" in check:
        _assert_command_exists(check["test"][1:])


def test_the_image_is_of_this_version(compose: dict[str, Any]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {compose["services"][name]["image"] for name in OURS} == {f"tollkeeper:{version}"}


def test_the_dockerfile_copies_what_exists_and_is_not_ignored(
    dockerfile: list[tuple[str, str]],
) -> None:
    stages = [rest.split(" AS ")[1] for word, rest in dockerfile if word == "FROM"]
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for word, rest in dockerfile:
        if word != "COPY":
            continue
        first, *others = shlex.split(rest)
        if first.startswith("--from="):
            assert first.removeprefix("--from=") in stages
            continue
        for source in [first, *others[:-1]]:
            assert (ROOT / source).exists()
            assert source in allowed


def test_the_image_does_not_run_as_root_and_holds_no_secret(
    dockerfile: list[tuple[str, str]], compose: dict[str, Any]
) -> None:
    users = [rest for word, rest in dockerfile if word == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert {compose["services"][name]["user"] for name in OURS} == {users[-1]}
    for word, rest in dockerfile:
        if word in ("ARG", "ENV"):
            assert not SECRET_NAME.search(rest)
    words = [word for word, _ in dockerfile]
    assert {"STOPSIGNAL", "HEALTHCHECK"} <= set(words)
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")


def test_mounted_folders_belong_to_the_user_of_the_image(
    dockerfile: list[tuple[str, str]], compose: dict[str, Any]
) -> None:
    made = next(rest for word, rest in dockerfile if word == "RUN" and "install -d" in rest)
    for name in OURS:
        for mount in compose["services"][name].get("volumes", []):
            assert mount.split(":")[1] in made.split("install -d", 1)[1]


def test_images_and_tools_are_pinned(
    dockerfile: list[tuple[str, str]], compose: dict[str, Any]
) -> None:
    arguments = dict(rest.split("=", 1) for word, rest in dockerfile if word == "ARG")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", arguments["PYTHON_IMAGE"])
    makefile = (ROOT / "Makefile").read_text()
    assert f"UV_VERSION := {arguments['UV_VERSION']}" in makefile
    for service in compose["services"].values():
        assert re.search(r":\d", service["image"])


def test_the_wheel_carries_what_the_template_is_looked_for_as() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"envoy/envoy.yaml": "tollkeeper/envoy.yaml"}
    assert envoy_config.TEMPLATE == ROOT / "envoy" / "envoy.yaml"


@pytest.fixture
def empty_postgres(server_root: Path) -> Iterator[PostgresServer]:
    """A server of its own: roles belong to a whole server, and these are made once."""
    root = server_root / "deployment"
    root.mkdir()
    with servers.postgres_running(root) as server:
        yield server


async def test_the_init_script_makes_roles_that_migrate_and_serve(
    empty_postgres: PostgresServer, secrets_folder: Path
) -> None:
    _run(
        *(str(binaries.postgres_binaries() / "psql"), "--no-psqlrc", "-v", "ON_ERROR_STOP=1"),
        *("--dbname", empty_postgres.dsn(SUPERUSER, "postgres")),
        *("--file", str(ROOT / "deploy" / "postgres" / "10-roles.sql")),
        environment={"SECRETS_FOLDER": str(secrets_folder)},
    )
    assert await migrate(empty_postgres.dsn("tollkeeper_owner"))
    superuser = await asyncpg.connect(empty_postgres.dsn(SUPERUSER, "tollkeeper"))
    rows = await superuser.fetch(
        "SELECT rolname, rolpassword, rolsuper FROM pg_authid WHERE rolname LIKE 'tollkeeper%'"
    )
    await superuser.close()
    assert {row["rolname"] for row in rows} == {"tollkeeper_owner", "tollkeeper_service"}
    assert all(row["rolpassword"].startswith("SCRAM-SHA-256$") for row in rows)
    assert not any(row["rolsuper"] for row in rows)
    service = await asyncpg.connect(empty_postgres.dsn("tollkeeper_service"))
    assert await service.fetchval("SELECT count(*) FROM accounts") == 0
    await service.close()


@pytest.fixture
def envoy_environment(tmp_path: Path) -> dict[str, str]:
    """As in docker-compose.yml, with everything below a folder of this test."""
    return {
        "TOLLKEEPER_ENVOY_LISTEN": f"127.0.0.1:{free_port()}",
        "TOLLKEEPER_AUTHZ_ADDRESS": "localhost:1",
        "TOLLKEEPER_AUTHZ_HEALTH_ADDRESS": "localhost:2",
        "TOLLKEEPER_AUTHZ_BODIES_ADDRESS": "localhost:5",
        "TOLLKEEPER_AUTHZ_BODIES_HEALTH_ADDRESS": "localhost:6",
        "TOLLKEEPER_INGEST_ADDRESS": "localhost:3",
        "TOLLKEEPER_METER_API_ADDRESS": "localhost:4",
        "TOLLKEEPER_PROVIDER_BASE_URL": "https://openrouter.ai/api/v1",
        "TOLLKEEPER_ENVOY_ACCESS_LOG": f"{tmp_path}/log/access.jsonl",
        "TOLLKEEPER_ENVOY_ADMIN_SOCKET": f"{tmp_path}/admin.sock",
        "TOLLKEEPER_ENVOY_CONFIG": f"{tmp_path}/envoy.yaml",
        "TOLLKEEPER_ENVOY_WORKERS": "1",
    }


def test_envoy_accepts_the_configuration_of_containers(envoy_environment: dict[str, str]) -> None:
    said = _run(str(BIN / "tollkeeper"), "envoy", "--validate", environment=envoy_environment)
    assert "Envoy accepts" in said


def test_the_command_runs_an_envoy_that_ends_on_sigterm(
    envoy_environment: dict[str, str],
) -> None:
    environment = os.environ | envoy_environment
    envoy = subprocess.Popen([str(BIN / "tollkeeper"), "envoy"], env=environment)
    try:
        _wait_until_healthy(environment)
        listen = envoy_environment["TOLLKEEPER_ENVOY_LISTEN"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{listen}/nowhere", timeout=WAIT_S)
        with refused.value as answer:
            assert answer.code == 404
            assert b"route_not_found" in answer.read()
    finally:
        envoy.terminate()
        assert envoy.wait(WAIT_S) == 0


def test_missing_settings_are_named_without_a_traceback() -> None:
    environment = {name: "" for name in os.environ if name.startswith("TOLLKEEPER_")}
    ended = subprocess.run(
        [str(BIN / "tollkeeper"), "envoy"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert ended.returncode == 1
    assert "TOLLKEEPER_AUTHZ_ADDRESS" in ended.stderr
    assert "Traceback" not in ended.stderr


def _run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    ended = subprocess.run(
        command,
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def _assert_command_exists(command: list[str]) -> None:
    """The program knows these words: it shows its help, or is a module that can be run."""
    program, *arguments = command
    if arguments[:2] == ["-m", "authz"]:
        assert (ROOT / "authz" / "__main__.py").exists()
        return
    _run(str(BIN / program), *arguments, "--help")


def _secrets(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Target and source of each secret of a service."""
    listed = service.get("secrets", [])
    return [(s, s) if isinstance(s, str) else (s["target"], s["source"]) for s in listed]


def _secret_sources(service: Mapping[str, Any]) -> set[str]:
    return {source for _, source in _secrets(service)}


def _setting_secrets(service: Mapping[str, Any]) -> dict[str, str]:
    """Secrets whose file names are settings."""
    return {target: source for target, source in _secrets(service) if "tollkeeper_" in target}


def _named_volumes(service: Mapping[str, Any]) -> set[str]:
    mounts = [one for one in service.get("volumes", []) if isinstance(one, str)]
    return {mount.split(":")[0] for mount in mounts}


def _bind_mounts(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [one for one in service.get("volumes", []) if isinstance(one, dict)]


def _variables(*settings: type[BaseSettings]) -> set[str]:
    return {f"TOLLKEEPER_{name}".upper() for each in settings for name in each.model_fields}


def _interpolated(value: str) -> str:
    return INTERPOLATION.sub(lambda found: found[2].removeprefix(":-"), value)


def _wait_until_healthy(environment: Mapping[str, str]) -> None:
    deadline = time.monotonic() + WAIT_S
    command = [str(BIN / "tollkeeper"), "health", "envoy"]
    while subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "Envoy is not ready"
