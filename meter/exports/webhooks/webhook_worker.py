"""Sends messages to webhooks: in order, at least once, each webhook for itself."""

import asyncio
import contextlib
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter
from yarl import URL

from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.exports.sending import EventsRefused, Sender, SinkUnavailable
from meter.exports.webhooks.outbox import Outbox, TakenWebhook, WaitingMessage
from meter.exports.webhooks.webhook import MessageState, signed_headers
from meter.process.background import RunningTasks
from meter.process.periodic import periodic

SEND_EVERY_S: Final = 2.0
# Balances and budgets are looked at so often: a request's settlement does not pay for it.
LOOK_EVERY_S: Final = 10.0
FORGET_EVERY_S: Final = 3_600.0
RETRY_S: Final = 5.0
# Webhooks that are sent to at once, and messages of one before the others have their turn.
WEBHOOKS_AT_ONCE: Final = 20
MESSAGES_AT_ONCE: Final = 20
# A webhook that answers 400, 413 or 422 so often to one message gets the next one.
MOST_REFUSALS: Final = 5

_log = structlog.get_logger(__name__)


class WebhookWorker:
    """The work in the background; several meters may have it at once."""

    def __init__(
        self, outbox: Outbox, sender: Sender, clock: Clock, registry: CollectorRegistry
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._running = RunningTasks()
        self._messages = Counter(
            "tollkeeper_webhook_messages",
            "Messages to webhooks of accounts (told, sent, parked, and failed attempts).",
            ("outcome",),
            registry=registry,
        )

    async def run(self) -> None:
        """Send, look and forget until cancelled, through outages of Postgres and of webhooks."""
        outages = (StoreUnavailable,)
        try:
            async with asyncio.TaskGroup() as works:
                works.create_task(
                    periodic("webhooks", self._send_due, SEND_EVERY_S, RETRY_S, outages)
                )
                works.create_task(
                    periodic("webhook_events", self.look, LOOK_EVERY_S, RETRY_S, outages)
                )
                works.create_task(
                    periodic("webhook_history", self._forget, FORGET_EVERY_S, RETRY_S, outages)
                )
        finally:
            await self._running.cancel()

    async def look(self) -> None:
        """Tell webhooks of balances and budgets. Raises StoreUnavailable."""
        self._messages.labels("told").inc(await self._outbox.look())

    async def send_all(self) -> None:
        """Send what is due now, and wait for the end. Raises StoreUnavailable."""
        taken = await self._outbox.take(WEBHOOKS_AT_ONCE)
        await asyncio.gather(*(self._serve(webhook) for webhook in taken))

    async def _send_due(self) -> None:
        # A task for each webhook: one that is slow delays no other.
        for webhook in await self._outbox.take(WEBHOOKS_AT_ONCE - len(self._running)):
            self._running.start(f"webhook {webhook.id}", self._serve(webhook))

    async def _forget(self) -> None:
        await self._outbox.forget()

    async def _serve(self, webhook: TakenWebhook) -> None:
        """Send the messages of one webhook until none waits, or one is not taken."""
        keeps_lease = False
        try:
            for message in await self._outbox.read(webhook.id, MESSAGES_AT_ONCE):
                if not await self._deliver(webhook, message):
                    return
        except StoreUnavailable as error:
            _log.warning("webhook_waits", webhook_id=webhook.id, reason=str(error))
        except Exception:
            # The lease ends by itself, so that a fault is not met at every look.
            keeps_lease = True
            _log.exception("webhook_failed", webhook_id=webhook.id)
        finally:
            # Also where the meter stops, so that the next one need not wait for the lease.
            if not keeps_lease:
                with contextlib.suppress(StoreUnavailable):
                    await self._outbox.give_back(webhook.id)

    async def _deliver(self, webhook: TakenWebhook, message: WaitingMessage) -> bool:
        """Send one message; return whether the next one may follow."""
        body = message.body.encode()
        headers = signed_headers(webhook.secret, message.id, self._clock.now(), body)
        headers |= {"content-type": "application/json", "user-agent": "Tollkeeper-Webhooks"}
        state, error = MessageState.SENT, None
        try:
            await self._sender.send("POST", URL(webhook.url), body, headers)
        except SinkUnavailable as failure:
            error = str(failure)
        except EventsRefused as refusal:
            error = str(refusal)
            if message.attempts + 1 >= MOST_REFUSALS:
                state = MessageState.PARKED
        if error is not None and state is MessageState.SENT:
            self._messages.labels("failed").inc()
            await self._outbox.put_off(webhook.id, message.id, error)
            return False
        self._messages.labels(state.value).inc()
        return await self._outbox.note(webhook.id, message.id, state, error)
