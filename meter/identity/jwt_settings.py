"""Settings of the processes that verify or sign JWTs."""

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from meter.identity.passes import DEFAULT_AUDIENCE, DEFAULT_ISSUER_URL

_CONTAINER_SECRETS: Final = Path("/run/secrets")


def secrets_folder() -> Path | None:
    """Return the folder in which containers find settings as files; None without such a folder.

    A file is named after its setting, such as `tollkeeper_database_url`. The environment takes
    precedence over the files.
    """
    return _CONTAINER_SECRETS if _CONTAINER_SECRETS.is_dir() else None


class JwtSettings(BaseSettings):
    """The JWTs that are accepted. Give authz and the meter the same values, so that both accept the
    same JWTs.
    """

    model_config = SettingsConfigDict(env_prefix="TOLLKEEPER_", secrets_dir=secrets_folder())

    # The `iss` of passes; their keys are published below this URL.
    issuer_url: str = Field(
        default=DEFAULT_ISSUER_URL, pattern=r"^https?://[!-~]+[^/?#]$", max_length=500
    )
    jwt_audience: str = Field(default=DEFAULT_AUDIENCE, min_length=1, max_length=200)
    # Private networks that other issuers may be in: CIDR notation, separated by commas.
    issuer_networks: str = ""
    # Trusted for issuers in addition to the system's roots.
    issuer_ca_file: Path | None = None
