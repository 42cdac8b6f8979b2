"""The addresses that `tollkeeper health` asks."""

from pathlib import Path

import pytest

from tollkeeper.commands.health import Checked, HealthSettings, Question, question_for
from tollkeeper.errors import CommandError


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8081", "http://127.0.0.1:8081/readyz"),
        ("0.0.0.0:8081", "http://127.0.0.1:8081/readyz"),
        ("[::]:8081", "http://[::1]:8081/readyz"),
        ("meter:9000", "http://meter:9000/readyz"),
    ],
)
def test_an_address_to_listen_on_becomes_one_to_ask(listen: str, url: str) -> None:
    settings = HealthSettings(meter_listen=listen)
    assert question_for(Checked.METER, settings) == Question(url, None)


def test_a_socket_is_asked_as_one() -> None:
    settings = HealthSettings(authz_health_listen="unix:/run/tollkeeper/health.sock")
    asked = question_for(Checked.AUTHZ, settings)
    assert asked.socket == Path("/run/tollkeeper/health.sock")


def test_envoy_is_asked_on_its_admin_socket() -> None:
    settings = HealthSettings(envoy_admin_socket=Path("/tmp/admin.sock"))
    assert question_for(Checked.ENVOY, settings).socket == Path("/tmp/admin.sock")


def test_an_unknown_place_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLKEEPER_AUTHZ_HEALTH_LISTEN", raising=False)
    with pytest.raises(CommandError, match="TOLLKEEPER_AUTHZ_HEALTH_LISTEN"):
        question_for(Checked.AUTHZ, HealthSettings())
