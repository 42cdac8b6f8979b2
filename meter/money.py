"""Money: integers of pico-dollars inside, decimal strings of US dollars outside.

A pico-dollar is 1e-12 USD, fine enough for the price of one token and coarse enough that a
signed 64-bit integer holds 9.2 million USD. One credit is one US dollar. Floats never appear.
"""

import re
from decimal import ROUND_CEILING, Context, Decimal
from typing import Final

from meter.errors import InvalidAmount

PICOS_PER_USD: Final = 10**12
PICOS_PER_CENT: Final = PICOS_PER_USD // 100
DECIMAL_PLACES: Final = 12
MAX_PICOS: Final = 2**63 - 1
BPS_PER_WHOLE: Final = 10_000

# Longer than any amount that fits a ledger entry; bounds the work of parsing.
MAX_AMOUNT_CHARS: Final = 32

_USD = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]{1,12})?")
# Wide enough that no number of a provider loses a digit before the one rounding.
_EXACT = Context(prec=60, rounding=ROUND_CEILING)


def parse_usd(text: str) -> int:
    """Read a decimal string such as `"5.00"` as pico-dollars.

    Raises InvalidAmount for anything else: exponents, signs other than a leading minus, more
    than 12 decimals, or an amount beyond a signed 64-bit integer.
    """
    if len(text) > MAX_AMOUNT_CHARS or _USD.fullmatch(text) is None:
        raise InvalidAmount(
            "an amount is a decimal string of US dollars with at most 12 decimals, such as '5.00'"
        )
    return _bounded(int(Decimal(text).scaleb(DECIMAL_PLACES, _EXACT)))


def format_usd(picos: int) -> str:
    """Write pico-dollars as a decimal string: at least two decimals, never an exponent."""
    sign = "-" if picos < 0 else ""
    whole, fraction = divmod(abs(picos), PICOS_PER_USD)
    decimals = f"{fraction:0{DECIMAL_PLACES}d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def picos_from_decimal(usd: Decimal) -> int:
    """Turn a provider's number into pico-dollars; digits beyond the twelfth decimal round up.

    This is the one rounding rule of the project: always up, so that a sum of estimates never
    falls below the estimate of the sum.
    Raises InvalidAmount when the number is not finite or too large.
    """
    if not usd.is_finite():
        raise InvalidAmount("the amount is not a finite number")
    if usd.adjusted() > DECIMAL_PLACES:
        raise InvalidAmount("the amount does not fit a ledger entry")
    scaled = usd.scaleb(DECIMAL_PLACES, _EXACT)
    return _bounded(int(scaled.to_integral_value(rounding=ROUND_CEILING)))


def add_markup(cost_picos: int, markup_bps: int) -> int:
    """Return the charge for a cost: cost plus markup in basis points, rounded up."""
    return -(-cost_picos * (BPS_PER_WHOLE + markup_bps) // BPS_PER_WHOLE)


def own_key_markup(fee_bps: int) -> int:
    """Return the markup of a request with an own key: below zero, so that the charge is the fee.

    The account itself pays its provider, and owes us a part of the cost, or nothing: a whole less
    is a charge of 0.
    """
    return fee_bps - BPS_PER_WHOLE


def own_key_fee(markup_bps: int) -> int | None:
    """Return the fee that a markup below zero stands for, in basis points; None for our own key."""
    return markup_bps + BPS_PER_WHOLE if markup_bps < 0 else None


def _bounded(picos: int) -> int:
    if abs(picos) > MAX_PICOS:
        raise InvalidAmount("the amount does not fit a ledger entry (9.2 million US dollars)")
    return picos
