"""Settings of the stack that a person may give, and the refusals of others."""

import socket

import pytest

from tests.paths import ROOT
from tollkeeper.stack.errors import StackError
from tollkeeper.stack.servers.environment import service_environment, simulator_environment
from tollkeeper.stack.servers.ports import free_port, free_port_like, require_free
from tollkeeper.stack.settings import load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "TOLLKEEPER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_key_there_is_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().has_simulator
    monkeypatch.setenv("OPENROUTER_API_KEY", "")
    assert load_settings().has_simulator


def test_the_state_folder_of_a_clone_is_inside_it() -> None:
    assert load_settings().home == ROOT / ".tollkeeper"


def test_options_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLKEEPER_PORT", "9000")
    assert load_settings(port=None).port == 9000
    assert load_settings(port=9001).port == 9001


@pytest.mark.parametrize("port", ["http", "0", "65536"])
def test_a_wrong_port_names_its_variable(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("TOLLKEEPER_PORT", port)
    with pytest.raises(StackError, match=r"^TOLLKEEPER_PORT is wrong: "):
        load_settings()


def test_ports_must_differ() -> None:
    with pytest.raises(StackError, match="must differ"):
        load_settings(port=9000, api_port=9000)


@pytest.mark.parametrize("url", ["http://example.com/v1", "ftp://127.0.0.1", "nonsense"])
def test_a_key_never_crosses_a_network_unprotected(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-planted")
    monkeypatch.setenv("OPENROUTER_BASE_URL", url)
    with pytest.raises(StackError, match="OPENROUTER_BASE_URL is wrong") as refusal:
        load_settings()
    assert "sk-or-planted" not in str(refusal.value)


def test_plain_http_is_allowed_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-planted")
    monkeypatch.setenv("OPENROUTER_BASE_URL", "http://127.0.0.1:9/api/v1/")
    settings = load_settings()
    assert settings.openrouter_base_url == "http://127.0.0.1:9/api/v1"
    assert "sk-or-planted" not in repr(settings)


def test_children_do_not_inherit_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-planted")
    monkeypatch.setenv("TOLLKEEPER_OPERATOR_TOKEN", "planted-token")
    monkeypatch.setenv("TOLLKEEPER_LOG_FORMAT", "console")
    seen = service_environment({"TOLLKEEPER_DATABASE_URL": "x"}) | simulator_environment(
        {"SIMULATOR_KEY": "own"}
    )
    assert not {"sk-or-planted", "planted-token"} & set(seen.values())
    assert seen["TOLLKEEPER_LOG_FORMAT"] == "console"
    assert seen["SIMULATOR_KEY"] == "own"


def test_a_port_in_use_is_named_with_its_variable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"Port {port} is in use.*TOLLKEEPER_API_PORT="):
            require_free("127.0.0.1", port, "TOLLKEEPER_API_PORT")
        assert free_port_like(port) != port
    require_free("127.0.0.1", free_port(), "TOLLKEEPER_PORT")


@pytest.mark.parametrize("address", ["192.0.2.1", "999.1.1.1"])
def test_an_address_that_is_not_ours_is_no_port_in_use(address: str) -> None:
    with pytest.raises(StackError, match=rf"Nothing can listen at {address}.*TOLLKEEPER_ADDRESS"):
        require_free(address, free_port(), "TOLLKEEPER_PORT")


def test_a_base_url_needs_a_key_only_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_BASE_URL", "http://127.0.0.1:9/v1")
    settings = load_settings()
    with pytest.raises(StackError, match="OPENROUTER_API_KEY"):
        settings.require_upstream()
    monkeypatch.setenv("OPENROUTER_API_KEY", "any")
    load_settings().require_upstream()
