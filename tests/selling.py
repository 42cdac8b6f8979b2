"""Selling credit in tests: the mode, and events signed as Stripe signs them."""

import json
import time
from typing import Any

import stripe

from meter.payments.mode import StripeMode
from meter.sealing import SecretText

WEBHOOK = "/api/v1/webhooks/stripe"
WEBHOOK_SECRET = "whsec_of_the_tests"
STRIPE_KEY = "sk_test_of_the_tests"
PUBLIC_URL = "http://gateway.test"


def mode(api_base: str = "http://127.0.0.1:9", is_live: bool = False) -> StripeMode:
    """Return the mode of a meter that sells through the Stripe at this address."""
    return StripeMode(
        SecretText(STRIPE_KEY), SecretText(WEBHOOK_SECRET), is_live, PUBLIC_URL, api_base
    )


def event(
    type_: str = "checkout.session.completed",
    object_id: str = "cs_test_1",
    event_id: str = "evt_1",
    **changes: Any,
) -> bytes:
    """An event as Stripe sends it, in the part that is read."""
    return json.dumps(
        {
            "id": event_id,
            "object": "event",
            "type": type_,
            "created": int(time.time()),
            "livemode": False,
            "data": {"object": {"id": object_id, "object": "checkout.session"}},
            **changes,
        }
    ).encode()


def signed(body: bytes, secret: str = WEBHOOK_SECRET, at: int | None = None) -> dict[str, str]:
    """The headers of a webhook with this body."""
    signature = stripe.WebhookSignature.generate_signature_header(
        body.decode(errors="replace"), secret, at
    )
    return {"Stripe-Signature": signature, "Content-Type": "application/json"}
