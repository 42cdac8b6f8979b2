"""Delivers events to sinks, each in its own protocol."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from yarl import URL

from meter.exports.export import format_instant
from meter.exports.sending import EventsRefused, Sender
from meter.exports.sink import SinkKind, SinkTerms
from meter.exports.usage_events import UsageEvent, batch_body
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.sealing import SecretText

_QUERIES: Final = queries("meter.exports")
_KNOWN_ACCOUNTS: Final = _QUERIES["known_accounts"]
_NOTE_ACCOUNT: Final = _QUERIES["note_account"]

# Lago refuses more events in a body.
MOST_EVENTS: Final = 100
_DUPLICATE: Final = {"transaction_id": ["value_already_exist"]}
TEST_TYPE: Final = "tollkeeper.test"


@dataclass(frozen=True, slots=True)
class Destination:
    """A sink with its opened credential."""

    sink_id: str
    terms: SinkTerms
    credential: SecretText | None

    @property
    def url(self) -> URL:
        """Return the address that its administrator set."""
        return URL(self.terms.url)

    def headers(self, media_type: str) -> dict[str, str]:
        """Return the headers of a request with a body of this type."""
        headers = {"content-type": media_type, "accept": "application/json"}
        if self.credential is not None:
            headers["authorization"] = f"Bearer {self.credential.reveal()}"
        return headers


class SinkDelivery:
    """Sends batches of at most MOST_EVENTS events.

    Raises EventsRefused where an event of the batch is at fault, SinkUnavailable where none is.
    """

    def __init__(self, pool: PostgresPool, sender: Sender) -> None:
        self._pool = pool
        self._sender = sender

    async def deliver(self, to: Destination, events: Sequence[UsageEvent]) -> None:
        """Send events. Those that the sink has already count as taken."""
        body = batch_body(to.terms.kind, events)
        if to.terms.kind is SinkKind.CLOUD_EVENTS:
            await self._post(to, to.url, body, "application/cloudevents-batch+json")
            return
        if to.terms.plan_code is not None:
            await self._keep_accounts(to, {event.account_id for event in events})
        try:
            await self._post(to, to.url.joinpath("api", "v1", "events", "batch"), body)
        except EventsRefused as refused:
            if not _has_all(refused.reply, len(events)):
                raise

    async def check(self, to: Destination) -> None:
        """Ask the sink for something that bills nobody: Lago for the metric, else a test event."""
        if to.terms.kind is SinkKind.LAGO:
            url = to.url.joinpath("api", "v1", "billable_metrics", to.terms.event_code)
            await self._sender.send("GET", url, None, to.headers("application/json"))
            return
        event = {
            "specversion": "1.0",
            "id": f"test-{uuid.uuid4()}",
            "source": to.terms.source,
            "type": TEST_TYPE,
            "subject": "tollkeeper",
            "time": format_instant(datetime.now(UTC)),
        }
        body = json.dumps([event]).encode()
        await self._post(to, to.url, body, "application/cloudevents-batch+json")

    async def _keep_accounts(self, to: Destination, account_ids: set[str]) -> None:
        """Make a customer and a subscription of each account that the sink has not yet.

        Both may be made again: Lago finds them by their external ids.
        """
        async with acquire(self._pool) as connection:
            known = await connection.fetch(_KNOWN_ACCOUNTS, to.sink_id, list(account_ids))
        for account_id in sorted(account_ids - {row["account_id"] for row in known}):
            subscription = {
                "external_customer_id": account_id,
                "external_id": account_id,
                "plan_code": to.terms.plan_code,
            }
            await self._make(to, "customers", {"customer": {"external_id": account_id}})
            await self._make(to, "subscriptions", {"subscription": subscription})
            async with acquire(self._pool) as connection:
                await connection.execute(_NOTE_ACCOUNT, to.sink_id, account_id)

    async def _make(self, to: Destination, what: str, members: dict[str, Any]) -> None:
        await self._post(to, to.url.joinpath("api", "v1", what), json.dumps(members).encode())

    async def _post(
        self, to: Destination, url: URL, body: bytes, media_type: str = "application/json"
    ) -> None:
        await self._sender.send("POST", url, body, to.headers(media_type))


def _has_all(reply: bytes, events: int) -> bool:
    """Return whether Lago refuses a batch only because it has each of its events already.

    With one new event among them, it takes none of the batch.
    """
    try:
        details = json.loads(reply)["error_details"]
    except (ValueError, KeyError, TypeError):
        return False
    if not isinstance(details, dict):
        return False
    if events == 1 and details == _DUPLICATE:
        return True
    return len(details) == events and all(one == _DUPLICATE for one in details.values())
