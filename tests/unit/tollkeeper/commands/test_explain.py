"""`tollkeeper explain`: where it asks."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tollkeeper.cli import build
from tollkeeper.commands.explain import find_authz


@pytest.mark.parametrize(
    ("given", "beside", "url", "socket"),
    [
        ("http://authz:8084/", None, "http://authz:8084/explain", None),
        ("authz:8084", None, "http://authz:8084/explain", None),
        ("unix:/run/a.sock", "0.0.0.0:1", "http://localhost/explain", Path("/run/a.sock")),
        (None, "0.0.0.0:8084", "http://127.0.0.1:8084/explain", None),
        (None, "unix:/run/b.sock", "http://localhost/explain", Path("/run/b.sock")),
        (None, None, "http://localhost/explain", Path("/h/run/authz-health.sock")),
    ],
)
def test_asks_what_is_named_then_beside_then_here(
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    beside: str | None,
    url: str,
    socket: Path | None,
) -> None:
    monkeypatch.delenv("TOLLKEEPER_AUTHZ_HEALTH_LISTEN", raising=False)
    if beside is not None:
        monkeypatch.setenv("TOLLKEEPER_AUTHZ_HEALTH_LISTEN", beside)
    assert find_authz(given, Path("/h")) == (url, socket)


def test_nothing_is_no_request() -> None:
    answer = CliRunner().invoke(build(), ["explain"])
    assert answer.exit_code == 2
    assert "tollkeeper explain -" in answer.output
