"""Objects as JSON text, indented as Stripe's answers and webhooks are."""

import msgspec


def encode(row: object) -> bytes:
    """Return an object as JSON. The standard library indents in Python, forty times slower."""
    return msgspec.json.format(msgspec.json.encode(row), indent=2)
