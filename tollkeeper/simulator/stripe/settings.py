"""The settings of the Stripe simulator."""

from typing import Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

#: Distances between attempts: the first follows at once, the last after three days.
THREE_DAYS: Final = (
    *(1.0, 5.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0),
    *(43_200.0, 43_200.0, 43_200.0, 43_200.0),
)


class StripeSimulatorSettings(BaseSettings):
    """Read from variables that begin with ``STRIPE_SIMULATOR_``.

    ``secret_key`` is the one key that is accepted; without it any that begins with ``sk_test_``
    or ``rk_test_`` is. ``webhook_url`` gets every event from the start, signed with
    ``webhook_secret``; more endpoints are added by the API.
    """

    model_config = SettingsConfigDict(env_prefix="STRIPE_SIMULATOR_")

    secret_key: SecretStr | None = None
    webhook_url: str | None = None
    webhook_secret: SecretStr | None = None
    #: Where browsers reach the hosted pages, if not at the address that is listened on.
    public_url: str | None = None
    webhook_retry_seconds: tuple[float, ...] = Field(default_factory=lambda: THREE_DAYS)
    webhook_timeout_seconds: float = Field(default=10, gt=0)
    #: Tax on top of the price where Stripe Tax is switched on, in percent.
    tax_percent: int = Field(default=10, ge=0, le=100)
    #: Time until a pending refund, a failing refund or a bank debit ends.
    settle_seconds: int = Field(default=5, ge=0)
    drain_seconds: int = Field(default=5, ge=0)

    @field_validator("secret_key")
    @classmethod
    def is_test_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key and not key.get_secret_value().startswith(("sk_test_", "rk_test_")):
            raise ValueError("must begin with sk_test_ or rk_test_: no live key belongs here")
        return key

    @model_validator(mode="after")
    def has_secret_for_webhook(self) -> Self:
        if self.webhook_url and not self.webhook_secret:
            raise ValueError("STRIPE_SIMULATOR_WEBHOOK_URL needs STRIPE_SIMULATOR_WEBHOOK_SECRET")
        return self
