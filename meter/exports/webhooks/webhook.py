"""Webhooks of accounts, their messages, and signatures as Standard Webhooks has them. Pure."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from meter.errors import InvalidRequest
from meter.jwts.addresses import read_https_url
from meter.sealing import SecretText

MOST_WEBHOOKS: Final = 5
DEFAULT_BUDGET_PERCENT: Final = 90
# Messages are kept for so long, sent or not. Longer than a month: see `budget.reached`.
KEPT_DAYS: Final = 35
SECRET_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32


class EventType(StrEnum):
    """The events that a webhook may want."""

    BALANCE_LOW = "balance.low"
    BUDGET_REACHED = "budget.reached"
    KEY_REVOKED = "key.revoked"
    PAYMENT_FAILED = "payment.failed"


class MessageState(StrEnum):
    """The states of a message. A parked one was refused, and is sent again when asked for."""

    WAITING = "waiting"
    SENT = "sent"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class WebhookTerms:
    """The settings of a webhook.

    `low_balance_picos` belongs to `balance.low`, which needs it. Raises InvalidRequest for another
    combination, and for an address that does not begin with https://.
    """

    url: str
    events: frozenset[EventType]
    low_balance_picos: int | None
    budget_percent: int = DEFAULT_BUDGET_PERCENT

    def __post_init__(self) -> None:
        read_https_url(self.url)
        if not self.events:
            raise InvalidRequest("a webhook needs one event at least")
        if (EventType.BALANCE_LOW in self.events) != (self.low_balance_picos is not None):
            raise InvalidRequest(
                "`low_balance` belongs to the event `balance.low`: give both or neither"
            )


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of an account. `failures` counts attempts since it last took a message."""

    id: str
    account_id: str
    url: str
    events: list[str]
    low_balance_picos: int | None
    budget_percent: int
    failures: int
    error: str | None
    next_attempt_at: datetime
    created_at: datetime
    waiting: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message to a webhook; `error` says why it was not taken at the last attempt."""

    id: str
    seq: int
    type: str
    body: str
    state: MessageState
    attempts: int
    error: str | None
    created_at: datetime
    attempted_at: datetime | None


def make_secret() -> SecretText:
    """Return a new secret in the form of Standard Webhooks."""
    return SecretText(SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())


def signed_headers(
    secret: SecretText, message_id: str, now: datetime, body: bytes
) -> dict[str, str]:
    """Return the headers by which a receiver verifies a message that is sent now."""
    key = base64.b64decode(secret.reveal().removeprefix(SECRET_PREFIX))
    timestamp = str(int(now.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
    }
