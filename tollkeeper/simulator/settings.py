"""The settings of the simulator."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class SimulatorSettings(BaseSettings):
    """Read from variables that begin with ``SIMULATOR_``.

    ``key`` is the one key that is accepted; without it any that begins with ``sk-or-`` is.
    ``broadcast_url`` is a webhook that every billed generation is reported to, with
    ``broadcast_token`` as its bearer token.
    """

    model_config = SettingsConfigDict(env_prefix="SIMULATOR_")

    key: SecretStr | None = None
    generation_delay_ms: int = Field(default=2_000, ge=0)
    drain_seconds: int = Field(default=5, ge=0)
    broadcast_url: str | None = None
    broadcast_token: SecretStr | None = None
    broadcast_delay_ms: int = Field(default=1_000, ge=0)
