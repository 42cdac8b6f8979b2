"""Puts the parts together that tell accounts of events."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import uuid4

from prometheus_client import CollectorRegistry

from meter.clock import Clock
from meter.exports.sending import Sender
from meter.exports.webhooks.outbox import Outbox
from meter.exports.webhooks.webhook_store import WebhookStore
from meter.exports.webhooks.webhook_worker import WebhookWorker
from meter.jwts.addresses import may_connect
from meter.network import Network
from meter.postgres.pool import PostgresPool
from meter.sealing import MasterKey

# A customer's server keeps a connection of ours for no longer.
TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The parts of one process that tell accounts of events."""

    store: WebhookStore
    worker: WebhookWorker
    sender: Sender


def make_webhooks(
    pool: PostgresPool,
    master_key: MasterKey,
    clock: Clock,
    registry: CollectorRegistry,
    allowed_networks: Sequence[Network] = (),
    tls: ssl.SSLContext | None = None,
) -> Webhooks:
    """Return the parts; close the sender at the end.

    Webhooks are at public addresses, or in `allowed_networks`. `tls` replaces the system's roots.
    """
    sender = Sender(partial(may_connect, allowed_networks=allowed_networks), TIMEOUT_S, tls)
    outbox = Outbox(pool, master_key, uuid4())
    return Webhooks(
        WebhookStore(pool, master_key), WebhookWorker(outbox, sender, clock, registry), sender
    )
