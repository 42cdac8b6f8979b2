"""uvicorn with the HTTP form: its socket, its requests to the letter, its end."""

import asyncio
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from authz.decide import Decider
from authz.decision import AllowUnmetered, Decision
from authz.http_checks.application import LOCAL_PEER, HttpForm
from authz.http_checks.server import serving
from authz.metrics import Metrics
from authz.request import AuthRequest
from authz.service import CheckService
from meter.clock import SystemClock
from tests.patience import WAIT_S, until


class Slow:
    """Allows after a while, and remembers what it was asked."""

    def __init__(self, pause_s: float) -> None:
        self.asked: list[AuthRequest] = []
        self._pause_s = pause_s

    async def decide(self, request: AuthRequest, _: float) -> Decision:
        self.asked.append(request)
        await asyncio.sleep(self._pause_s)
        return AllowUnmetered("acme", "key", ("inference",))

    @property
    def form(self) -> HttpForm:
        metrics = Metrics(CollectorRegistry())
        service = CheckService(cast(Decider, self), SystemClock(), metrics, WAIT_S)
        return HttpForm(service, 100)


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tk-", dir="/tmp") as folder:
        yield Path(folder) / "http.sock"


async def ask(path: Path, target: str, headers: str = "") -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    lines = f"POST {target} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n"
    writer.write(f"{lines}{headers}\r\n{{}}".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_socket_for_our_user_and_group_with_targets_to_the_letter(path: Path) -> None:
    slow = Slow(0)
    async with serving(slow.form, f"unix:{path}", 1):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        answer = await ask(
            path, "/envoy//v1/%2Fx?", "x-forwarded-for: 192.0.2.1\r\nx-api-key: a\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nserver:" not in answer
    (seen,) = slow.asked
    assert (seen.path, seen.body) == ("//v1/%2Fx?", b"{}")
    # Nobody rewrites the peer by what is forwarded.
    assert (seen.peer, seen.values("x-forwarded-for")) == (LOCAL_PEER, ["192.0.2.1"])
    assert not path.exists()


async def test_a_check_under_way_is_answered_before_the_end(path: Path) -> None:
    slow = Slow(0.2)
    async with serving(slow.form, f"unix:{path}", int(WAIT_S)):
        asking = asyncio.create_task(ask(path, "/forward?metering=off"))
        await until(lambda: slow.asked, "the check is under way")
    assert (await asking).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "QUERY"])
async def test_any_method_is_decided_about(path: Path, method: str) -> None:
    slow = Slow(0)
    async with serving(slow.form, f"unix:{path}", 1):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"{method} /envoy/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [one.method for one in slow.asked] == [method]


async def test_an_address_that_cannot_be_had_is_an_error(path: Path) -> None:
    path.write_text("")
    with pytest.raises(OSError, match="cannot listen"):
        async with serving(Slow(0).form, f"unix:{path}", 1):
            pass
