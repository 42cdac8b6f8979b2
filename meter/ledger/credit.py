"""Credit given, bought or taken back: what must hold before it is posted."""

from datetime import datetime

from meter.accounts.account import Funds
from meter.errors import Conflict, InvalidRequest
from meter.ledger.postings import Posting, Template
from meter.money import MAX_PICOS, format_usd


class InsufficientAvailable(Conflict):
    """An adjustment would take more than is available, so it would break open holds."""


class IdempotencyKeyReused(Conflict):
    """The same idempotency key came before with another amount or reason."""


class BalanceTooLarge(Conflict):
    """The balance would no longer fit a ledger entry."""


def check_credit(posting: Posting, funds: Funds) -> None:
    """Demand that the account can bear this posting.

    Raises InsufficientAvailable or BalanceTooLarge; money that open holds have set aside is
    never taken away from under them. The reversal of a payment is: that money has left already.
    """
    amount_picos = posting.customer_picos
    may_overdraw = posting.template is Template.PAYMENT_REVERSAL
    if amount_picos < 0 and not may_overdraw and funds.available_picos + amount_picos < 0:
        raise InsufficientAvailable(
            f"the adjustment takes {format_usd(-amount_picos)} USD "
            f"but {format_usd(funds.available_picos)} USD is available"
        )
    if funds.balance_picos + amount_picos > MAX_PICOS:
        raise BalanceTooLarge("the balance would exceed 9.2 million USD")


def check_expiry(posting: Posting) -> None:
    """Demand that credit expires after it is given; raises InvalidRequest."""
    if posting.expires_at is None or posting.booked_at is None:
        return
    if posting.expires_at <= posting.booked_at:
        raise InvalidRequest(
            "expires_at is not in the future: credit must expire after it is given"
        )


def check_replay(
    posting: Posting,
    recorded_picos: int,
    recorded_reason: str | None,
    recorded_expiry: datetime | None = None,
) -> None:
    """Demand that a posting which exists already says the same; raises IdempotencyKeyReused."""
    said = (posting.customer_picos, posting.reason, posting.expires_at)
    if said != (recorded_picos, recorded_reason, recorded_expiry):
        raise IdempotencyKeyReused(
            "this Idempotency-Key was used before with another amount, reason or expiry"
        )
