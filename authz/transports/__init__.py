"""Transports that receive Envoy's checks over gRPC."""
