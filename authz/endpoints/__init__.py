"""The endpoints that are served: how a body is read, what it may cost, what is edited."""
