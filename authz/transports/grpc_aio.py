"""Carries checks with `grpc.aio`: a fallback that is slower and takes no answer back."""

import os
from typing import Any

import grpc.aio

from authz.transports.transport import (
    MAX_CONCURRENT_CHECKS,
    MAX_MESSAGE_BYTES,
    METHOD,
    SERVICE,
    Check,
)
from meter.listening import SOCKET_MODE, SOCKET_UMASK, parse_address


class GrpcAioTransport:
    """Implements Transport; messages pass as bytes, unparsed.

    This transport never takes an answer back, because gRPC reports the same cancellation for an
    answer that was lost and for a connection that broke after the answer had arrived.
    """

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None

    async def start(self, check: Check, listen: str) -> None:
        """Listen; a Unix socket has its final mode from its first moment."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", MAX_CONCURRENT_CHECKS),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=MAX_CONCURRENT_CHECKS,
        )

        async def answer(payload: bytes, _context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
            return (await check(payload)).payload

        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
        )
        before = os.umask(SOCKET_UMASK)
        try:
            # gRPC raises only RuntimeError when an address cannot be bound.
            server.add_insecure_port(listen)
            await server.start()
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen}") from error
        finally:
            os.umask(before)
        if path := parse_address(listen).path:
            path.chmod(SOCKET_MODE)
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Drain: tell Envoy to use other instances, and let the checks under way finish."""
        if self._server is not None:
            await self._server.stop(grace_s)
