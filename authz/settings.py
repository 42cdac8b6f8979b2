"""The settings of authz: environment variables that start with TOLLKEEPER_."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from meter.identity.jwt_settings import JwtSettings, secrets_folder
from meter.process.telemetry import LogFormat


class Settings(JwtSettings):
    """The settings of authz. Addresses are `unix:/path` or `host:port`."""

    model_config = SettingsConfigDict(
        env_prefix="TOLLKEEPER_", hide_input_in_errors=True, secrets_dir=secrets_folder()
    )

    database_url: SecretStr
    redis_url: SecretStr
    master_key_file: Path
    authz_listen: str
    authz_health_listen: str
    # The same checks over HTTP, for proxies that do not speak Envoy's gRPC; unset: off.
    authz_http_listen: str | None = None
    # Networks of proxies before us, with commas between: see meter/network.py.
    trusted_proxies: str = ""
    log_format: LogFormat = "json"
    # The page where credit is bought, which refusals for want of credit name.
    credit_url: str | None = Field(default=None, pattern=r"^https?://[!-~]+$", max_length=500)
    authz_log_level: Literal["debug", "info", "warning", "error"] = "info"

    # `grpc_aio` is slower and cannot take back answers that were thrown away (ADR 0004).
    authz_transport: Literal["http2", "grpc_aio"] = "http2"
    # Below the 2 s after which Envoy gives up, so that the client gets our own answer.
    authz_deadline_ms: int = Field(default=1_500, ge=50, le=60_000)
    authz_drain_grace_s: float = Field(default=5.0, ge=0, le=60)
    authz_database_connections: int = Field(default=6, ge=2, le=100)
    authz_hold_lifetime_s: int = Field(default=3_600, ge=60, le=86_400)
    # The shortest reply worth starting when a request names no limit of its own.
    authz_floor_tokens: int = Field(default=16, ge=1, le=4_096)
    authz_max_body_bytes: int = Field(default=24 * 2**20, ge=1_024, le=31 * 2**20)
    # Large bodies that arrive at the same time, by their announced lengths: of all accounts, which
    # Envoy must have the memory for, and of one account.
    authz_arriving_bytes: int = Field(default=1_280 * 2**20, ge=24 * 2**20, le=2**40)
    authz_arriving_account_bytes: int = Field(default=320 * 2**20, ge=24 * 2**20, le=2**40)
    # Below one second: a revocation takes effect within one.
    authz_principal_max_age_ms: int = Field(default=900, ge=0, le=950)
    # Look-ups a second of credentials that were never seen alive.
    authz_first_lookups_per_s: int = Field(default=1_000, ge=1, le=1_000_000)
    # Refused credentials are answered after whole steps of this and a random part of another.
    authz_refusal_step_ms: int = Field(default=10, ge=0, le=200)
    authz_catalogue_refresh_s: float = Field(default=2.0, ge=0.1, le=60)
    authz_redis_timeout_ms: int = Field(default=200, ge=1, le=1_000)
    # How many instances share the limits while Redis cannot be asked.
    authz_expected_instances: int = Field(default=1, ge=1, le=1_000)
    # Whether bodies carry a tag, by which the provider's reports lead back to holds.
    provider_reports: bool = False
    # For fault tests only: see meter/process/crash_points.py.
    crash_folder: Path | None = None

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read them. Raises pydantic's ValidationError, which shows no value."""
        return cls.model_validate({})
