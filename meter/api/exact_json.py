"""JSON whose numbers have every digit of an amount, for clients that read money as numbers."""

import json
from decimal import Decimal

from meter.money import format_usd


def usd_number(picos: int) -> Decimal:
    """Return an amount in US dollars, exact, for `to_json`."""
    return Decimal(format_usd(picos))


def to_json(value: object) -> str:
    """Write a value as JSON; decimals become numbers without an exponent, never floats."""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, dict):
        members = (f"{json.dumps(name)}:{to_json(member)}" for name, member in value.items())
        return f"{{{','.join(members)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(to_json, value))}]"
    return json.dumps(value)
