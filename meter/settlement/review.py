"""Settlements that an administrator may want to look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """A request that a policy ended, because nothing told what it used.

    `charged_picos` was charged then, 0 where the hold was let go; `charge_picos` is what the
    request comes to now, with all that turned up later. `rule` is that of
    `meter.settlement.policy`; None where nothing was to be charged.
    """

    hold_id: UUID
    placed_at: datetime
    decided_at: datetime
    account_id: str
    model_id: str
    is_charge: bool
    held_picos: int
    charged_picos: int
    charge_picos: int
    rule: str | None
    is_corrected: bool
    generation_id: str | None


@dataclass(frozen=True, slots=True)
class SettlementConflict:
    """An arrival that contradicted the books; nothing was done but to keep it.

    `arrived` is the observation as it came; `account_id` is None for a hold that nobody knows.
    """

    id: int
    hold_id: UUID
    kind: str
    recorded_at: datetime
    account_id: str | None
    cost_picos: int | None
    arrived: Mapping[str, Any]
