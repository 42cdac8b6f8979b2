"""How Envoy's checks arrive over gRPC."""
