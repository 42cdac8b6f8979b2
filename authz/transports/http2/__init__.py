"""A small HTTP/2 server for one unary gRPC method. `Http2Transport` is its whole interface."""

from authz.transports.http2.server import Http2Transport

__all__ = ["Http2Transport"]
