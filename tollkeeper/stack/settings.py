"""The settings of the stack: environment variables and options."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

import tollkeeper
from meter.ingest.access_logs import AccessLogs
from tollkeeper.stack.errors import StackError
from tollkeeper.stack.servers.instances import MAX_INSTANCES

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_ENVOY_WORKERS = 4


class StackSettings(BaseSettings):
    """The environment of `tollkeeper up`, `down` and `status`.

    `address` and `port` are Envoy's: it speaks plain HTTP, so it listens on
    loopback until told otherwise. `envoy_workers` are its threads, `envoy_drain_s` is
    how long it may wait for requests under way when it is ended, `access_logs` are the
    logs that it writes and the meters read, `cors_origins` the origins whose pages may
    call it from a browser. `api_port` is the
    first meter API's, always loopback. With `openrouter_api_key` the upstream is
    `openrouter_base_url`; without, the simulator.
    """

    model_config = SettingsConfigDict(
        env_prefix="TOLLKEEPER_", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    home: Path = Field(default_factory=lambda: default_home())
    address: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    api_port: int = Field(default=8081, ge=1, le=65535)
    authz_instances: int = Field(default=1, ge=1, le=MAX_INSTANCES)
    meter_instances: int = Field(default=1, ge=1, le=MAX_INSTANCES)
    # A thread of Envoy for each core, up to a few.
    envoy_workers: int = Field(
        default_factory=lambda: max(1, min(MAX_ENVOY_WORKERS, os.cpu_count() or 1)), ge=1, le=256
    )
    envoy_drain_s: float = Field(default=30.0, ge=0, le=3600)
    access_logs: AccessLogs = AccessLogs.BOTH
    cors_origins: str = ""
    operator_token: SecretStr | None = None
    openrouter_api_key: SecretStr | None = Field(
        default=None, validation_alias="OPENROUTER_API_KEY"
    )
    openrouter_base_url: str | None = Field(default=None, validation_alias="OPENROUTER_BASE_URL")
    # Sell credit through a simulator of Stripe, where no account at Stripe is at hand.
    stripe_simulator: bool = False

    @field_validator("openrouter_base_url")
    @classmethod
    def _require_protected_url(cls, url: str | None) -> str | None:
        """A provider key crosses a network under verified TLS or not at all."""
        if url is None:
            return None
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (
            parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS
        )
        if not is_safe or not parts.hostname:
            raise ValueError("must be an https:// address, or http:// on loopback")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _require_consistency(self) -> "StackSettings":
        if self.port == self.api_port:
            raise ValueError("TOLLKEEPER_PORT and TOLLKEEPER_API_PORT must differ")
        return self

    def require_upstream(self) -> None:
        """Raise StackError unless it is clear which upstream a start would use."""
        if self.openrouter_base_url and not self.openrouter_api_key:
            raise StackError(
                "OPENROUTER_BASE_URL needs OPENROUTER_API_KEY beside it; any text will do for a "
                "server that asks for no key."
            )

    @property
    def has_simulator(self) -> bool:
        """Return whether the upstream is our own simulator."""
        return self.openrouter_api_key is None


def load_settings(**options: Any) -> StackSettings:
    """Settings from the environment; options that are not None go before it.

    Raises StackError with one sentence about the first thing that is wrong. What
    was given is never repeated: it may be a secret.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return StackSettings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        variable = name if name.isupper() else f"TOLLKEEPER_{name.upper()}"
        subject = f"{variable} is wrong: " if name else ""
        sentence = first["msg"].removeprefix("Value error, ")
        raise StackError(f"{subject}{sentence}.") from None


def default_home() -> Path:
    """The state folder: in the clone when run from one, else in the user's home."""
    source = Path(tollkeeper.__file__).parent.parent
    if (source / "pyproject.toml").exists():
        return source / ".tollkeeper"
    return Path.home() / ".tollkeeper"
