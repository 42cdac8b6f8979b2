"""Settings of whoever verifies or signs JWTs."""

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from meter.identity.passes import DEFAULT_AUDIENCE, DEFAULT_ISSUER_URL

_CONTAINER_SECRETS: Final = Path("/run/secrets")


def secrets_folder() -> Path | None:
    """Where containers find settings as files, one named `tollkeeper_database_url` and so on.

    None where there is no such folder; the environment goes before it.
    """
    return _CONTAINER_SECRETS if _CONTAINER_SECRETS.is_dir() else None


class JwtSettings(BaseSettings):
    """Which JWTs are believed: the same for authz and the meter, or one lets in what the other
    does not.
    """

    model_config = SettingsConfigDict(env_prefix="TOLLKEEPER_", secrets_dir=secrets_folder())

    # The `iss` of passes, and where their keys are published.
    issuer_url: str = Field(
        default=DEFAULT_ISSUER_URL, pattern=r"^https?://[!-~]+[^/?#]$", max_length=500
    )
    jwt_audience: str = Field(default=DEFAULT_AUDIENCE, min_length=1, max_length=200)
    # Private networks in CIDR notation, with commas between, where other issuers may be.
    issuer_networks: str = ""
    # Trusted for issuers beside the system's roots.
    issuer_ca_file: Path | None = None
