"""Messages that wait for webhooks, as the worker takes them, and the events that it looks for."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from meter.errors import SealBroken
from meter.exports.webhooks.webhook import KEPT_DAYS, MessageState
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.sealing import MasterKey, SecretText, WebhookContext

_QUERIES: Final = queries("meter.exports.webhooks")
_TAKE_WEBHOOKS: Final = _QUERIES["take_webhooks"]
_READ_WAITING: Final = _QUERIES["read_waiting"]
_NOTE_ANSWER: Final = _QUERIES["note_answer"]
_PUT_OFF_WEBHOOK: Final = _QUERIES["put_off_webhook"]
_LOCK_WEBHOOK: Final = _QUERIES["lock_webhook"]
_REST_WEBHOOK: Final = _QUERIES["rest_webhook"]
_NEXT_WEBHOOKS: Final = _QUERIES["next_webhooks"]
_TELL_LOW_BALANCES: Final = _QUERIES["tell_low_balances"]
_TELL_REACHED_BUDGETS: Final = _QUERIES["tell_reached_budgets"]
_FORGET_MESSAGES: Final = _QUERIES["forget_messages"]

# Nobody else sends to a webhook for so long after its worker was last heard of.
LEASE_S: Final = 120.0
FIRST_RETRY_S: Final = 5.0
MOST_RETRY_S: Final = 3_600.0
# Webhooks that one statement looks at.
PAGE_WEBHOOKS: Final = 200
FORGOTTEN_AT_ONCE: Final = 1_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TakenWebhook:
    """A webhook that this worker sends to, with its opened secret."""

    id: str
    url: str
    secret: SecretText


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that waits, and how often it was tried."""

    id: str
    body: str
    attempts: int


class Outbox:
    """The queue of messages. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool, master_key: MasterKey, worker: UUID) -> None:
        self._pool = pool
        self._master_key = master_key
        self._worker = worker

    async def take(self, limit: int) -> list[TakenWebhook]:
        """Take webhooks with messages that nobody else sends to.

        One whose secret cannot be opened is passed over until its lease ends.
        """
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_TAKE_WEBHOOKS, self._worker, LEASE_S, limit)
        taken = []
        for row in rows:
            context = WebhookContext(row["account_id"], row["id"])
            try:
                secret = self._master_key.open(row["sealed"], context)
            except SealBroken as error:
                _log.error("webhook_secret_sealed", webhook_id=row["id"], reason=str(error))
                continue
            taken.append(TakenWebhook(row["id"], row["url"], secret))
        return taken

    async def read(self, webhook_id: str, limit: int) -> list[WaitingMessage]:
        """Return messages that wait, in order."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_READ_WAITING, webhook_id, limit)
        return [WaitingMessage(**row) for row in rows]

    async def note(
        self, webhook_id: str, message_id: str, state: MessageState, error: str | None
    ) -> bool:
        """Note that a message was taken or is parked; return whether this worker may go on."""
        async with acquire(self._pool) as connection:
            noted = await connection.fetchval(
                _NOTE_ANSWER, webhook_id, self._worker, message_id, state.value, error, LEASE_S
            )
        return noted is not None

    async def put_off(self, webhook_id: str, message_id: str, error: str) -> None:
        """Note why a message was not taken, give the webhook back, and try it later."""
        async with acquire(self._pool) as connection:
            await connection.execute(
                _PUT_OFF_WEBHOOK,
                webhook_id,
                self._worker,
                message_id,
                error,
                FIRST_RETRY_S,
                MOST_RETRY_S,
            )

    async def give_back(self, webhook_id: str) -> None:
        """Let others send to a webhook; it rests until its next message where none waits."""
        async with acquire(self._pool) as connection, connection.transaction():
            # The second statement sees the messages of transactions that the first waited for.
            if await connection.fetchval(_LOCK_WEBHOOK, webhook_id, self._worker) is not None:
                await connection.execute(_REST_WEBHOOK, webhook_id)

    async def look(self) -> int:
        """Write messages of balances and budgets; return how many. Page by page."""
        after, told = "", 0
        while True:
            async with acquire(self._pool) as connection:
                last = await connection.fetchval(_NEXT_WEBHOOKS, after, PAGE_WEBHOOKS)
                if last is None:
                    return told
                told += await connection.fetchval(_TELL_LOW_BALANCES, after, last)
                told += await connection.fetchval(_TELL_REACHED_BUDGETS, after, last)
            after = last

    async def forget(self) -> int:
        """Delete messages that are older than KEPT_DAYS; return how many."""
        forgotten = 0
        while True:
            async with acquire(self._pool) as connection:
                gone: int = await connection.fetchval(
                    _FORGET_MESSAGES, timedelta(days=KEPT_DAYS), FORGOTTEN_AT_ONCE
                )
            forgotten += gone
            if gone < FORGOTTEN_AT_ONCE:
                return forgotten
