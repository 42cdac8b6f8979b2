"""Usage: an account's requests, added up by day, model or key."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Page, PageQuery, Reply, Usd, UserId
from meter.api.periods import FirstDay, LastDay, read_period
from meter.api.services import FromAccounts, FromClock, FromCursors, FromUsage
from meter.usage.usage_totals import Grouping, UsageTotals

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/usage",
    tags=["Transactions and usage"],
    dependencies=AdministratorsOnly,
)


class UsageQuery(PageQuery):
    """The requests to add up. Days are those of UTC on which requests began."""

    group_by: Annotated[Grouping, Query(description="One row for each day, model or key")] = (
        Grouping.DAY
    )
    first: FirstDay = None
    last: LastDay = None


class UsageReply(Reply):
    """The requests of one group, added up."""

    group: str = Field(
        description="The day, the model's id or the key's id", examples=["2026-01-31"]
    )
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    charge: Usd = Field(validation_alias="charge_picos")
    own_key_cost: Usd = Field(
        validation_alias="own_key_cost_picos",
        description="What the user paid providers directly, with provider keys of its own",
    )


class BilledUsageReply(UsageReply):
    """The same with the cost that the provider billed, which only administrators see."""

    provider_cost: Usd = Field(validation_alias="provider_cost_picos")


class UsagePageReply(Page):
    """Usage by group, in order of the group."""

    group_by: Grouping
    data: list[UsageReply]


class BilledUsagePageReply(Page):
    """Usage by group with the provider's cost."""

    group_by: Grouping
    data: list[BilledUsageReply]


@dataclass(frozen=True, slots=True)
class AccountUsage:
    """Reads pages of an account's totals, for administrators and for the account itself."""

    usage: FromUsage
    cursors: FromCursors
    clock: FromClock

    async def page(
        self, account_id: str, query: UsageQuery
    ) -> tuple[list[UsageTotals], str | None]:
        """Return one page of totals, and the cursor of the next.

        Raises ProblemError (422) for a period that ends before it begins, or is too long.
        """
        first, last = read_period(query.first, query.last, self.clock)
        scope = f"usage:{account_id}:{query.group_by}:{first}:{last}"
        fetch = partial(self.usage.list_totals, account_id, query.group_by, (first, last))
        return await self.cursors.page(scope, query, fetch, lambda row: (row.group,), str)


FromAccountUsage = Annotated[AccountUsage, Depends()]


@router.get("", summary="Add up a user's usage")
async def total_usage(
    user_id: UserId,
    query: Annotated[UsageQuery, Query()],
    accounts: FromAccounts,
    account_usage: FromAccountUsage,
) -> BilledUsagePageReply:
    """Add up requests, tokens, provider cost and charge by day, model or key; 366 days at most."""
    await accounts.get(user_id)
    rows, cursor = await account_usage.page(user_id, query)
    return BilledUsagePageReply(
        data=[BilledUsageReply.model_validate(row) for row in rows],
        next_cursor=cursor,
        group_by=query.group_by,
    )
