"""Receives Envoy's access log as a gRPC stream."""
