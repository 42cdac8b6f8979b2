"""Webhooks in Postgres, as accounts make, list and delete them."""

import uuid
from typing import TYPE_CHECKING, Final

from meter.accounts.account_store import user_not_found
from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import Conflict, NotFound
from meter.exports.webhooks.webhook import (
    MOST_WEBHOOKS,
    Message,
    MessageState,
    Webhook,
    WebhookTerms,
    make_secret,
)
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.sealing import MasterKey, SecretText, WebhookContext

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.exports.webhooks")
_COUNT_WEBHOOKS: Final = _QUERIES["count_webhooks"]
_INSERT_WEBHOOK: Final = _QUERIES["insert_webhook"]
_LIST_WEBHOOKS: Final = _QUERIES["list_webhooks"]
_DELETE_WEBHOOK: Final = _QUERIES["delete_webhook"]
_LIST_MESSAGES: Final = _QUERIES["list_messages"]
_INSERT_TEST: Final = _QUERIES["insert_test"]
_RESEND_MESSAGE: Final = _QUERIES["resend_message"]
_LOCK_ACCOUNT_FUNDS: Final = queries("meter.accounts")["lock_account_funds"]


class WebhookStore:
    """Makes and lists the webhooks of accounts, and their messages.

    Another account's webhook is answered like one that does not exist. Raises StoreUnavailable
    during an outage.
    """

    def __init__(self, pool: PostgresPool, master_key: MasterKey) -> None:
        self._pool = pool
        self._master_key = master_key

    async def create(
        self, account_id: str, terms: WebhookTerms, actor: Actor
    ) -> tuple[Webhook, SecretText]:
        """Make a webhook; return it with its secret, which is shown this once.

        Raises NotFound for an unknown account, and Conflict for one webhook too many.
        """
        webhook_id, secret = f"wh_{uuid.uuid4().hex}", make_secret()
        sealed = self._master_key.seal(secret, WebhookContext(account_id, webhook_id))
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchrow(_LOCK_ACCOUNT_FUNDS, account_id) is None:
                raise user_not_found(account_id)
            if await connection.fetchval(_COUNT_WEBHOOKS, account_id) >= MOST_WEBHOOKS:
                raise Conflict(
                    f"there are {MOST_WEBHOOKS} webhooks already, and an account has no more; "
                    "delete one first"
                )
            await connection.execute(
                _INSERT_WEBHOOK,
                webhook_id,
                account_id,
                terms.url,
                sorted(terms.events),
                terms.low_balance_picos,
                terms.budget_percent,
                sealed,
            )
            detail = {"url": terms.url, "events": sorted(terms.events)}
            event = AuditEvent("webhook.created", f"webhook:{webhook_id}", account_id, detail)
            await write_audit(connection, actor, event)
        return await self.get(account_id, webhook_id), secret

    async def list_all(self, account_id: str) -> list[Webhook]:
        """Return the webhooks of an account, oldest first."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_WEBHOOKS, account_id, None)
        return [from_row(Webhook, row) for row in rows]

    async def get(self, account_id: str, webhook_id: str) -> Webhook:
        """Return a webhook. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_LIST_WEBHOOKS, account_id, webhook_id)
        if row is None:
            raise _not_found(webhook_id)
        return from_row(Webhook, row)

    async def delete(self, account_id: str, webhook_id: str, actor: Actor) -> None:
        """Delete a webhook with its secret and messages. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            url = await connection.fetchval(_DELETE_WEBHOOK, account_id, webhook_id)
            if url is None:
                raise _not_found(webhook_id)
            event = AuditEvent("webhook.deleted", f"webhook:{webhook_id}", account_id, {"url": url})
            await write_audit(connection, actor, event)

    async def list_messages(
        self, account_id: str, webhook_id: str, before: int | None, limit: int
    ) -> list[Message]:
        """Return messages, newest first, older than the one at `before`. Raises NotFound."""
        await self.get(account_id, webhook_id)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_MESSAGES, account_id, webhook_id, before, limit)
        return [_message(row) for row in rows]

    async def add_test(self, account_id: str, webhook_id: str) -> Message:
        """Have a test message sent, one in a minute at most. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_INSERT_TEST, account_id, webhook_id)
        if row is None:
            raise _not_found(webhook_id)
        return _message(row)

    async def resend(self, account_id: str, webhook_id: str, message_id: str) -> Message:
        """Have a message sent again. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_RESEND_MESSAGE, account_id, webhook_id, message_id)
        if row is None:
            raise NotFound(f"the webhook has no message '{message_id}'")
        return _message(row)


def _not_found(webhook_id: str) -> NotFound:
    return NotFound(f"the user has no webhook '{webhook_id}'")


def _message(row: "Record") -> Message:
    return from_row(Message, row, state=MessageState(row["state"]))
