"""The meter's settings, all from the environment, all prefixed `TOLLKEEPER_`."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from meter.errors import InvalidRequest
from meter.identity.jwt_settings import JwtSettings, secrets_folder
from meter.ingest.access_logs import AccessLogs
from meter.jwts.signing import SigningAlgorithm
from meter.payments.mode import StripeMode, selling_mode
from meter.process.telemetry import LogFormat
from meter.providers import openrouter
from meter.sealing import SecretText
from meter.settlement.look_up_terms import LookupTerms


def read_secret(value: SecretStr | None, file: Path | None, what: str) -> SecretText | None:
    """A secret given as it is or in a file; None where neither is.

    Raises InvalidRequest for a file that cannot be read or is empty.
    """
    if value is not None and value.get_secret_value():
        return SecretText(value.get_secret_value())
    if file is None:
        return None
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{what} cannot be read from {file}") from error
    if not text:
        raise InvalidRequest(f"the file of {what} {file} is empty")
    return SecretText(text)


class MigrationSettings(BaseSettings):
    """The settings of `python -m meter migrate`."""

    model_config = SettingsConfigDict(env_prefix="TOLLKEEPER_", secrets_dir=secrets_folder())

    migration_database_url: SecretStr
    log_format: LogFormat = "json"


class MeterSettings(JwtSettings):
    """The settings of `python -m meter`. Addresses are `unix:/path` or `host:port`."""

    model_config = SettingsConfigDict(env_prefix="TOLLKEEPER_", secrets_dir=secrets_folder())

    database_url: SecretStr
    master_key_file: Path
    operator_token_file: Path | None = None
    operator_token: SecretStr | None = None
    provider_base_url: str = openrouter.BASE_URL
    # Hosts and networks of providers that may be asked by plain http, with commas between.
    plain_http_providers: str = ""
    meter_listen: str = "127.0.0.1:8081"
    ingest_listen: str = "127.0.0.1:8082"
    catalogue_sync_every_s: float = Field(default=300.0, gt=0)
    database_connections: int = Field(default=10, ge=3, le=200)
    # Where authz counts limits; unset, limits of tokens know of prompts only.
    redis_url: SecretStr | None = None
    # The logs that Envoy writes: the same choice as Envoy's own.
    access_logs: AccessLogs = AccessLogs.BOTH
    # Envoy's JSON access log; without it the stream is alone, and there has to be one.
    envoy_access_log: Path | None = None
    # Envoy's administration interface, for rotating that log and for its own alarms.
    envoy_admin: str | None = None
    # Where the clusters of further providers are kept for Envoys on this machine. Others ask.
    envoy_clusters: Path | None = None
    lookup_first_delay_s: float = Field(default=3.0, ge=0, le=3_600)
    # How long a request may stay unknown before a policy decides.
    lookup_patience_s: float = Field(default=900.0, ge=1, le=604_800)
    # 0 never asks the provider; each meter asks at most so often.
    lookups_per_second: float = Field(default=20.0, ge=0, le=1_000)
    # Of the requests that a log settled, the share whose record is asked for, and how often.
    record_sample_share: float = Field(default=0.01, ge=0, le=1)
    record_samples_per_second: float = Field(default=1.0, gt=0, le=1_000)
    sweep_every_s: float = Field(default=1.0, gt=0, le=3_600)
    # How many whole months before the present one stay in detail; unset keeps all.
    usage_retention_months: int | None = Field(default=None, ge=2)
    ledger_retention_months: int | None = Field(default=None, ge=2)
    # How many days ended keys, audit lines and conflicts stay; unset keeps all.
    record_retention_days: int | None = Field(default=None, ge=90)
    reconcile_every_s: float = Field(default=86_400.0, ge=60)
    # How long the provider may take until its total has a request that was settled.
    reconcile_lag_s: float = Field(default=300.0, ge=0, le=86_400)
    # Whether the provider's total corrects charges by policy: only where no other installation
    # uses the provider's key.
    corrects_guesses: bool = True
    # How passes are signed, and for how long with one key.
    jwt_algorithm: SigningAlgorithm = "EdDSA"
    signing_key_rotation_days: int = Field(default=30, ge=1, le=365)
    # For fault tests only: see meter/process/crash_points.py.
    crash_folder: Path | None = None
    # Whether the provider's reports of finished generations are taken in, and by which token.
    provider_reports: bool = False
    provider_reports_token: SecretStr | None = None
    provider_reports_token_file: Path | None = None
    # Selling credit through Stripe: off without a key. Real money needs a live key and the switch.
    stripe_key: SecretStr | None = None
    stripe_key_file: Path | None = None
    stripe_webhook_secret: SecretStr | None = None
    stripe_webhook_secret_file: Path | None = None
    stripe_live: bool = False
    # A simulator on this machine in place of Stripe.
    stripe_api_base: str | None = None
    # The address of the gateway as customers' browsers reach it; Stripe sends them back there.
    public_url: str | None = None
    # Private networks that webhooks of accounts may be in: CIDR notation, separated by commas.
    webhook_networks: str = ""
    # Networks of proxies before us, with commas between: see meter/network.py.
    trusted_proxies: str = ""
    log_format: LogFormat = "json"

    @property
    def stripe_mode(self) -> StripeMode | None:
        """Return how credit is sold, None where it is not. Raises InvalidRequest."""
        return selling_mode(
            read_secret(self.stripe_key, self.stripe_key_file, "Stripe's key"),
            read_secret(
                self.stripe_webhook_secret,
                self.stripe_webhook_secret_file,
                "the secret of Stripe's webhook",
            ),
            self.stripe_live,
            self.public_url or self.issuer_url,
            self.stripe_api_base,
        )

    @property
    def lookup_terms(self) -> LookupTerms:
        """Return when and for how long the usage of a request is looked up."""
        return LookupTerms(
            first_delay=timedelta(seconds=self.lookup_first_delay_s),
            patience=timedelta(seconds=self.lookup_patience_s),
        )
