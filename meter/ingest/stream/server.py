"""The gRPC access-log service of Envoy (envoy.service.accesslog.v3), on a Unix socket or TCP.

`grpc.aio` is fast enough here: some hundred entries share a message.
"""

from collections.abc import AsyncIterator
from typing import Final

import grpc
import structlog

from meter.ingest.batcher import Batcher
from meter.ingest.metrics import IngestMetrics
from meter.ingest.stream.wire import facts_from_message
from meter.usage.usage import Source

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = "StreamAccessLogs"
# Envoy sends batches of some 512 KiB; one entry may be as large as its metadata allows.
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
STOP_GRACE_S: Final = 2.0
MIN_PING_INTERVAL_MS: Final = 500

_log = structlog.get_logger(__name__)


class AccessLogService:
    """Takes the stream in: entries become facts, facts wait to be settled."""

    def __init__(self, batcher: Batcher, metrics: IngestMetrics) -> None:
        self._batcher = batcher
        self._metrics = metrics

    async def stream(self, messages: AsyncIterator[bytes], _context: object) -> bytes:
        """Read one stream to its end. Envoy opens one per worker and never ends it itself."""
        async for payload in messages:
            await self.take(payload)
        return b""

    async def take(self, payload: bytes) -> None:
        """Queue the entries of one message; what cannot be read is counted and alarmed."""
        try:
            entries = facts_from_message(payload)
        except ValueError:
            self._metrics.malformed.inc()
            _log.exception("access_log_unreadable", message_bytes=len(payload))
            return
        self._metrics.entries.inc(len(entries))
        await self._batcher.put(entries, Source.STREAM)


def build_server(service: AccessLogService, listen: str) -> grpc.aio.Server:
    """A server that listens on `unix:/path` or `host:port`; raises OSError when it cannot."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Envoy asks every 2 s whether we are alive; gRPC would take that for an attack.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ("grpc.http2.max_ping_strikes", 0),
        ]
    )
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(
        service.stream
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
    )
    try:
        server.add_insecure_port(listen)
    except RuntimeError as error:
        raise OSError(f"the access-log service cannot listen on {listen}") from error
    return server
