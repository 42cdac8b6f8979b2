"""The catalogue: models that are not offered, and findings of listings that are not believed."""

from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Instant, Reply
from meter.api.services import FromCatalogue, FromDoubts

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
