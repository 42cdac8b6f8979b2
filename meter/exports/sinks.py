"""Puts the parts together that send usage to other systems."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from meter.errors import MeterError
from meter.exports.sending import Sender
from meter.exports.sink import may_be_sink
from meter.exports.sink_delivery import SinkDelivery
from meter.exports.sink_store import SinkStore
from meter.exports.sink_worker import SinkWorker
from meter.postgres.pool import PostgresPool
from meter.sealing import MasterKey


@dataclass(frozen=True, slots=True)
class Sinks:
    """The parts of one process that send usage to sinks."""

    store: SinkStore
    delivery: SinkDelivery
    worker: SinkWorker
    sender: Sender

    async def check(self, sink_id: str) -> str | None:
        """Ask a sink whether it would take events; return why not, None where it would.

        Raises NotFound.
        """
        destination = await self.store.destination(sink_id)
        try:
            await self.delivery.check(destination)
        except MeterError as error:
            return str(error)
        return None


def make_sinks(pool: PostgresPool, master_key: MasterKey, registry: CollectorRegistry) -> Sinks:
    """Return the parts that send usage; close the sender at the end."""
    store = SinkStore(pool, master_key)
    sender = Sender(may_be_sink)
    delivery = SinkDelivery(pool, sender)
    return Sinks(store, delivery, SinkWorker(pool, store, delivery, registry), sender)
