"""The endpoints: how a body is read, what it may cost at most, and how it is edited."""
