"""Describes the clusters of Envoy, made from the providers and routes that administrators set."""
