"""The real servers of a stack: Postgres, Redis, Envoy, and our own processes."""
