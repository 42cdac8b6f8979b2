"""The catalogue: models that the provider lists and that are not offered."""

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Instant, Reply
from meter.api.services import FromCatalogue

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
