"""The mode of selling: off without a key, test, or live where both key and setting say so."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from meter.errors import InvalidRequest
from meter.sealing import SecretText

_TEST_KEYS: Final = ("sk_test_", "rk_test_")
_LIVE_KEYS: Final = ("sk_live_", "rk_live_")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class StripeMode:
    """The means to sell through Stripe. `api_base` is None for Stripe itself.

    `return_base` is the address of this gateway, as customers' browsers reach it.
    """

    key: SecretText
    webhook_secret: SecretText
    is_live: bool
    return_base: str
    api_base: str | None = None


def selling_mode(
    key: SecretText | None,
    webhook_secret: SecretText | None,
    is_live: bool,
    return_base: str,
    api_base: str | None,
) -> StripeMode | None:
    """Return how credit is sold; None while no key is set.

    Raises InvalidRequest where the parts contradict each other: real money never moves by one
    setting alone, and a key goes nowhere but to Stripe or to this machine.
    """
    if key is None:
        if is_live:
            raise InvalidRequest(
                "TOLLKEEPER_STRIPE_LIVE is true, but TOLLKEEPER_STRIPE_KEY is not set"
            )
        return None
    text = key.reveal()
    if text.startswith(_LIVE_KEYS) and not is_live:
        raise InvalidRequest(
            "TOLLKEEPER_STRIPE_KEY is a live key, and TOLLKEEPER_STRIPE_LIVE is not true: "
            "use a test key, or set TOLLKEEPER_STRIPE_LIVE=true to sell for real money"
        )
    if text.startswith(_TEST_KEYS) and is_live:
        raise InvalidRequest(
            "TOLLKEEPER_STRIPE_LIVE is true, and TOLLKEEPER_STRIPE_KEY is a test key: "
            "set the live key (sk_live_... or rk_live_...)"
        )
    if not text.startswith((*_TEST_KEYS, *_LIVE_KEYS)):
        raise InvalidRequest(
            "TOLLKEEPER_STRIPE_KEY is no secret key of Stripe: it begins with sk_test_, rk_test_, "
            "sk_live_ or rk_live_"
        )
    if webhook_secret is None:
        raise InvalidRequest(
            "TOLLKEEPER_STRIPE_KEY is set without TOLLKEEPER_STRIPE_WEBHOOK_SECRET, by which "
            "Stripe's messages are known: copy it from the webhook endpoint (whsec_...)"
        )
    if api_base is not None:
        parts = urlsplit(api_base)
        is_simulator = parts.hostname in _LOOPBACK and not is_live
        if not is_simulator:
            raise InvalidRequest(
                "TOLLKEEPER_STRIPE_API_BASE is for a simulator on this machine in test mode; "
                "remove it to reach Stripe"
            )
    return StripeMode(key, webhook_secret, is_live, return_base.rstrip("/"), api_base)
