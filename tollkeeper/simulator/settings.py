"""What the environment may say to the simulator."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class SimulatorSettings(BaseSettings):
    """Read from variables that begin with ``SIMULATOR_``.

    ``key`` is the one key that is accepted; without it any that begins with ``sk-or-`` is.
    """

    model_config = SettingsConfigDict(env_prefix="SIMULATOR_")

    key: SecretStr | None = None
    generation_delay_ms: int = Field(default=2_000, ge=0)
    drain_seconds: int = Field(default=5, ge=0)
