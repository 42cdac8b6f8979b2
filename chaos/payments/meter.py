"""A meter for the payments campaign: the real one, with one rule switched off if so asked."""

import os
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import uuid4

from meter.__main__ import main
from meter.ledger import postings
from meter.ledger.postings import Posting
from meter.payments import payment_store, sweep
from meter.payments.sweep import PaymentSweep

WITHOUT: Final = "PAYMENTS_CAMPAIGN_WITHOUT"
UNIQUE_KEY: Final = "unique-key"
SWEEP: Final = "sweep"
RULES: Final = (UNIQUE_KEY, SWEEP)


# The stand-in lists an event at once. An hour again would make each start list the whole campaign,
# and of the questions in it one in twenty fails for good.
LISTED_AGAIN: Final = timedelta(seconds=2)
SWEPT_AGAIN_S: Final = 2.0


def switch_off(rule: str) -> None:
    """Switch one rule of payments off in this process."""
    if rule == UNIQUE_KEY:

        def with_any_id(account_id: str, payment_id: str, amount_picos: int) -> Posting:
            return replace(postings.payment(account_id, payment_id, amount_picos), id=uuid4())

        vars(payment_store)["payment"] = with_any_id
    elif rule == SWEEP:

        async def no_sweep(_: PaymentSweep) -> None:
            return None

        setattr(PaymentSweep, "sweep", no_sweep)  # noqa: B010


if __name__ == "__main__":
    vars(sweep).update(OVERLAP=LISTED_AGAIN, RETRY_S=SWEPT_AGAIN_S)
    switch_off(os.environ.get(WITHOUT, ""))
    sys.exit(main())
