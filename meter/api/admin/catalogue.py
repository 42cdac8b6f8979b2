"""The catalogue: models that are not offered, doubted findings, and raised estimates."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Instant, PlainText, Reply
from meter.api.services import FromCatalogue, FromDoubts, FromRaisedEstimates
from meter.money import BPS_PER_WHOLE
from meter.pricing.prices import MAX_FACTOR_BPS

router = APIRouter(
    prefix="/api/v1/admin/catalogue", tags=["Catalogue"], dependencies=AdministratorsOnly
)


class WithheldModelReply(Reply):
    """A model that the provider lists and that is not offered, with the reason."""

    provider: str = Field(examples=["openrouter"])
    model: str = Field(validation_alias="model_id", examples=["acme/painter"])
    reason: str = Field(examples=["The price member 'video_output' is not understood."])
    since: Instant = Field(validation_alias="first_seen_at")


class WithheldModelListReply(Reply):
    """All models that are not offered."""

    data: list[WithheldModelReply]


@router.get("/withheld", summary="List models that are not offered")
async def list_withheld_models(catalogue: FromCatalogue) -> WithheldModelListReply:
    """List the models of the provider's last listing whose cost cannot be bounded."""
    return WithheldModelListReply.model_validate({"data": await catalogue.list_withheld()})


class DoubtReply(Reply):
    """A finding in a provider's listing that is not applied yet.

    `model` is null where the finding is about the whole listing. An accepted finding takes effect
    with the next listing.
    """

    id: UUID
    provider: str = Field(examples=["openrouter"])
    model: Annotated[str | None, BeforeValidator(lambda subject: subject or None)] = Field(
        validation_alias="subject", examples=["acme/one"]
    )
    explanation: str = Field(examples=["prompt: from 150000 to 15 pico-dollars"])
    since: Instant = Field(validation_alias="first_seen_at")
    accepted_at: Instant | None


class DoubtListReply(Reply):
    """All findings that are not applied yet."""

    data: list[DoubtReply]


@router.get("/doubts", summary="List findings that are not applied")
async def list_doubts(doubts: FromDoubts) -> DoubtListReply:
    """List the losses of many models and the large changes of prices in the last listing."""
    return DoubtListReply.model_validate({"data": await doubts.list_all()})


@router.put("/doubts/{doubt_id}/acceptance", status_code=204, summary="Accept a finding")
async def accept_doubt(doubt_id: UUID, actor: FromAdministrator, doubts: FromDoubts) -> None:
    """Accept the finding; it is applied with the next listing that contains it."""
    await doubts.accept(doubt_id, actor)


class RaisedEstimateReply(Reply):
    """A model and endpoint whose requests proved to cost more than their holds.

    Holds are multiplied by `factor`. Requests are refused where `is_refused` is true.
    """

    model: str = Field(validation_alias="model_id", examples=["acme/one"])
    endpoint: str = Field(examples=["chat_completions"])
    factor: Annotated[float, BeforeValidator(lambda bps: bps / BPS_PER_WHOLE)] = Field(
        validation_alias="factor_bps", examples=[1.7]
    )
    is_refused: Annotated[bool, BeforeValidator(lambda bps: bps >= MAX_FACTOR_BPS)] = Field(
        validation_alias="factor_bps"
    )
    excesses: int = Field(description="Settlements above their holds")
    raised_at: Instant
    last_excess_at: Instant


class RaisedEstimateListReply(Reply):
    """All raised estimates."""

    data: list[RaisedEstimateReply]


class ClassQuery(BaseModel):
    """The requests of one model to one endpoint."""

    model_config = ConfigDict(extra="forbid")

    model: PlainText = Field(min_length=1, max_length=200)
    endpoint: PlainText = Field(min_length=1, max_length=64)


@router.get("/raised-estimates", summary="List raised estimates")
async def list_raised_estimates(raised: FromRaisedEstimates) -> RaisedEstimateListReply:
    """List the models and endpoints whose measured excess raises their holds."""
    return RaisedEstimateListReply.model_validate({"data": await raised.list_all()})


@router.delete("/raised-estimates", status_code=204, summary="Clear a raised estimate")
async def clear_raised_estimate(
    asked: Annotated[ClassQuery, Query()], actor: FromAdministrator, raised: FromRaisedEstimates
) -> None:
    """Trust the estimates of a model and endpoint again; the next excess raises them anew."""
    await raised.clear(asked.model, asked.endpoint, actor)
