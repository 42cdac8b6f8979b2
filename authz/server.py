"""Carries checks over gRPC. A `Transport` is all that the rest knows of it, so that a quicker
HTTP/2 server can take its place (docs/adr/0004-grpc-transport-behind-a-seam.md).
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

import grpc.aio

SERVICE: Final = "envoy.service.auth.v3.Authorization"
METHOD: Final = "Check"
MAX_MESSAGE_BYTES: Final = 32 * 2**20
MAX_CONCURRENT_CHECKS: Final = 4_096
SOCKET_MODE: Final = 0o660
_SOCKET_UMASK: Final = 0o777 & ~SOCKET_MODE

Check = Callable[[bytes], Awaitable[bytes]]


class Transport(Protocol):
    """Brings checks to a function from bytes to bytes, and its answers back.

    When the asker leaves, the function's task is cancelled.
    """

    async def start(self, check: Check, listen: str) -> None:
        """Listen on `unix:/path` or `host:port`. Raises OSError when that is not possible."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Accept no more checks, and give those under way `grace_s` to finish."""
        ...


class GrpcTransport:
    """Implements Transport with `grpc.aio`; messages pass as bytes, unparsed."""

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None

    async def start(self, check: Check, listen: str) -> None:
        """Listen, with a socket that only our user and group may use from its first moment."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", MAX_CONCURRENT_CHECKS),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=MAX_CONCURRENT_CHECKS,
        )
        server.add_generic_rpc_handlers((_handler(check),))
        before = os.umask(_SOCKET_UMASK)
        try:
            # gRPC says only RuntimeError where an address cannot be had.
            server.add_insecure_port(listen)
            await server.start()
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen}") from error
        finally:
            os.umask(before)
        if listen.startswith("unix:"):
            Path(listen.removeprefix("unix:")).chmod(SOCKET_MODE)
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Drain: Envoy is told to go elsewhere while the checks under way finish."""
        if self._server is not None:
            await self._server.stop(grace_s)


def _handler(check: Check) -> grpc.GenericRpcHandler:
    async def answer(payload: bytes, _context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        return await check(payload)

    return grpc.method_handlers_generic_handler(
        SERVICE, {METHOD: grpc.unary_unary_rpc_method_handler(answer)}
    )
