"""Going live: the checks that must pass before real money is taken."""

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.billing.replies import FromPayments
from meter.api.fields import AccountId, Body, Reply
from meter.payments.go_live import CheckState

router = APIRouter(
    prefix="/api/v1/admin/go-live", tags=["Payments"], dependencies=AdministratorsOnly
)


class GoLiveBody(Body):
    """The account that makes the purchase of 1 USD, needed until there is one."""

    user_id: AccountId | None = None


class CheckReply(Reply):
    """A check, why it is as it is, and what to do next; null where nothing is to be done."""

    name: str = Field(examples=["webhook endpoint at Stripe"])
    state: CheckState
    why: str
    next_step: str | None


class GoLiveReply(Reply):
    """The checks in their order. In test mode they are a rehearsal, and open nothing."""

    is_live: bool
    ok: bool = Field(validation_alias="has_passed")
    checks: list[CheckReply]


@router.post("", summary="Check what going live needs")
async def go_live(
    body: GoLiveBody, actor: FromAdministrator, payments: FromPayments
) -> GoLiveReply:
    """Run the checks; with a live key, credit is sold for real money once all have passed.

    May be repeated: it continues where the last run ended.
    """
    return GoLiveReply.model_validate(await payments.go_live.run(body.user_id, actor))
