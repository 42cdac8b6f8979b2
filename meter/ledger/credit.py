"""Credit given, bought or taken back: what must hold before it is posted."""

from meter.accounts.account import Funds
from meter.errors import Conflict
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


def check_replay(posting: Posting, recorded_picos: int, recorded_reason: str | None) -> None:
    """Demand that a posting which exists already says the same; raises IdempotencyKeyReused."""
    if (posting.customer_picos, posting.reason) != (recorded_picos, recorded_reason):
        raise IdempotencyKeyReused(
            "this Idempotency-Key was used before with another amount or reason"
        )
