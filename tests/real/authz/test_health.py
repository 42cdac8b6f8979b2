"""The health server's answers about the parts, and about a start without Postgres."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from authz.application import open_application
from authz.health import ComponentHealth, HealthServer
from authz.protos.ext_authz_pb2 import CheckResponse
from authz.request import AuthRequest
from authz.settings import Settings
from meter.identity.keys.key_text import mint
from tests.fakes import to_check
from tests.patience import WAIT_S

OK = ComponentHealth("ok", True)


class Parts:
    """Parts whose health a test sets."""

    def __init__(self) -> None:
        self.found: dict[str, ComponentHealth] = {"postgres": OK, "redis": OK}

    async def read(self) -> Mapping[str, ComponentHealth]:
        return self.found


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def server(parts: Parts, tmp_path: Path) -> AsyncIterator[HealthServer]:
    made = HealthServer(parts.read, CollectorRegistry())
    await made.start(f"unix:{tmp_path}/h.sock")
    yield made
    await made.stop()


async def get(tmp_path: Path, path: str) -> tuple[int, dict[str, object]]:
    connector = aiohttp.UnixConnector(str(tmp_path / "h.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(f"http://authz{path}") as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("found", "status", "word"),
    [
        ({"postgres": OK, "redis": OK}, 200, "ready"),
        ({"postgres": OK, "redis": ComponentHealth("degraded", False, False)}, 200, "degraded"),
        ({"postgres": ComponentHealth("away", False), "redis": OK}, 503, "not_ready"),
    ],
)
async def test_only_what_checks_need_makes_it_unready(
    server: HealthServer,
    parts: Parts,
    tmp_path: Path,
    found: dict[str, ComponentHealth],
    status: int,
    word: str,
) -> None:
    parts.found = found
    components = {name: {"status": part.status} for name, part in found.items()}
    assert await get(tmp_path, "/readyz") == (status, {"status": word, "components": components})
    assert await get(tmp_path, "/healthz") == (200, {"status": "alive"})


async def test_says_that_it_drains(server: HealthServer, tmp_path: Path) -> None:
    server.start_draining()
    status, answer = await get(tmp_path, "/readyz")
    assert (status, answer["status"]) == (503, "draining")


def settings(tmp_path: Path, **changes: str) -> dict[str, str]:
    master_key = tmp_path / "master.key"
    master_key.write_text("ab" * 32)
    return {
        "database_url": f"postgresql://nobody@/nothing?host={tmp_path}",
        "redis_url": f"unix://{tmp_path}/no-redis.sock",
        "master_key_file": str(master_key),
        "authz_listen": f"unix:{tmp_path}/a.sock",
        "authz_health_listen": f"unix:{tmp_path}/h.sock",
        **changes,
    }


async def test_without_postgres_every_check_is_an_outage(tmp_path: Path) -> None:
    async with open_application(Settings.model_validate(settings(tmp_path))) as application:
        await application.health.start(f"unix:{tmp_path}/h.sock")
        status, answer = await get(tmp_path, "/readyz")
        assert status == 503
        assert answer["components"] == {
            "postgres": {"status": "away"},
            "catalogue": {"status": "not_loaded"},
            "redis": {"status": "ok"},
            "provider_key": {"status": "unknown"},
        }
        headers = (("x-api-key", mint().plain.reveal()), ("content-type", "application/json"))
        sent = to_check(AuthRequest("POST", "/v1/completions", headers, b'{"model":"m"}'))
        told = CheckResponse.FromString((await application.service.check(sent)).payload)
        assert told.error_response.status.code == 503


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"master_key_file": "/nowhere/master.key"}, "/nowhere/master.key"),
        ({"authz_listen": "unix:/nowhere/a.sock"}, "/nowhere/a.sock"),
        ({"authz_principal_max_age_ms": "5000"}, "TOLLKEEPER_AUTHZ_PRINCIPAL_MAX_AGE_MS"),
    ],
)
def test_a_start_that_cannot_be_says_why(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    given = {f"TOLLKEEPER_{k}".upper(): v for k, v in settings(tmp_path, **changes).items()}
    done = subprocess.run(
        [sys.executable, "-m", "authz"],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
