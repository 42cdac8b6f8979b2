"""Settlements for an administrator to review: policy decisions and conflicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class PastPolicyDecision:
    """A request that a policy ended, because its usage never became known.

    `charged_picos` was charged by the decision, 0 where it ended the hold without a charge.
    `charge_picos` is the charge now, later corrections included. `rule` is a rule of
    `meter.settlement.policy`; None where nothing was charged.
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
    """An arrival that contradicted the books; it was kept and changed nothing.

    `arrived` is the observation as JSON. `account_id` and `cost_picos`, the recorded cost, are
    None for a hold that has no usage record.
    """

    id: int
    hold_id: UUID
    kind: str
    recorded_at: datetime
    account_id: str | None
    cost_picos: int | None
    arrived: Mapping[str, Any]
