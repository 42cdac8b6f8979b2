"""The catalogue: models that are not offered, doubted findings, and raised estimates."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Instant, Reply
from meter.api.services import FromCatalogue, FromDoubts, FromRaisedEstimates
from meter.money import BPS_PER_WHOLE
from meter.pricing.prices import MAX_FACTOR_BPS

router = APIRouter(
    prefix="/api/v1/admin/catalogue", tags=["Catalogue"], dependencies=AdministratorsOnly
)


class WithheldModelReply(Reply):
    """A model that the provider lists and that is not offered, with the reason."""

    provider: str = Field(examples=["openrouter"])
    model: str = Field(examples=["acme/painter"])
    reason: str = Field(examples=["The price member 'video_output' is not understood."])
    since: Instant


class WithheldModelListReply(Reply):
    """All models that are not offered."""

    data: list[WithheldModelReply]


@router.get("/withheld", summary="List models that are not offered")
async def list_withheld_models(catalogue: FromCatalogue) -> WithheldModelListReply:
    """The models of the provider's last listing whose cost cannot be bounded."""
    return WithheldModelListReply(
        data=[
            WithheldModelReply(
                provider=one.provider,
                model=one.model_id,
                reason=one.reason,
                since=one.first_seen_at,
            )
            for one in await catalogue.list_withheld()
        ]
    )


class DoubtReply(Reply):
    """A finding of a provider's listing that is not believed at first sight.

    `model` is null where the finding is about the whole listing. An accepted finding takes effect
    with the next listing.
    """

    id: UUID
    provider: str = Field(examples=["openrouter"])
    model: str | None = Field(examples=["acme/one"])
    explanation: str = Field(examples=["prompt: from 150000 to 15 pico-dollars"])
    since: Instant
    accepted_at: Instant | None


class DoubtListReply(Reply):
    """All findings that are not believed, or not yet in effect."""

    data: list[DoubtReply]


@router.get("/doubts", summary="List findings that are not believed")
async def list_doubts(doubts: FromDoubts) -> DoubtListReply:
    """The losses of many models, and the large changes of prices, in the last listing."""
    return DoubtListReply(
        data=[
            DoubtReply(
                id=one.id,
                provider=one.provider,
                model=one.subject or None,
                explanation=one.explanation,
                since=one.first_seen_at,
                accepted_at=one.accepted_at,
            )
            for one in await doubts.list_all()
        ]
    )


@router.put("/doubts/{doubt_id}/acceptance", status_code=204, summary="Accept a finding")
async def accept_doubt(doubt_id: UUID, actor: FromAdministrator, doubts: FromDoubts) -> None:
    """Believe the finding; it takes effect with the next listing that says the same."""
    await doubts.accept(doubt_id, actor)


class RaisedEstimateReply(Reply):
    """A model and endpoint whose requests proved to cost more than their holds.

    Holds are multiplied by `factor`. Requests are refused where `is_refused` is true.
    """

    model: str = Field(examples=["acme/one"])
    endpoint: str = Field(examples=["chat_completions"])
    factor: float = Field(examples=[1.7])
    is_refused: bool
    excesses: int = Field(description="Settlements above their holds")
    raised_at: Instant
    last_excess_at: Instant


class RaisedEstimateListReply(Reply):
    """All raised estimates."""

    data: list[RaisedEstimateReply]


class ClassQuery(BaseModel):
    """The requests of one model to one endpoint."""

    model: str = Field(min_length=1, max_length=200)
    endpoint: str = Field(min_length=1, max_length=64)


@router.get("/raised-estimates", summary="List raised estimates")
async def list_raised_estimates(raised: FromRaisedEstimates) -> RaisedEstimateListReply:
    """The models and endpoints whose measured excess raises their holds."""
    return RaisedEstimateListReply(
        data=[
            RaisedEstimateReply(
                model=one.model_id,
                endpoint=one.endpoint,
                factor=one.factor_bps / BPS_PER_WHOLE,
                is_refused=one.factor_bps >= MAX_FACTOR_BPS,
                excesses=one.excesses,
                raised_at=one.raised_at,
                last_excess_at=one.last_excess_at,
            )
            for one in await raised.list_all()
        ]
    )


@router.delete("/raised-estimates", status_code=204, summary="Clear a raised estimate")
async def clear_raised_estimate(
    asked: Annotated[ClassQuery, Query()], actor: FromAdministrator, raised: FromRaisedEstimates
) -> None:
    """Trust the estimates of a model and endpoint again; the next excess raises them anew."""
    await raised.clear(asked.model, asked.endpoint, actor)
