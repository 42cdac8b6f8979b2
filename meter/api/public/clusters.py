"""The clusters of Envoy, for Envoys that ask: a part of xDS over REST, in JSON.

For Envoys on the private network, like health and metrics. The gateway does not route here, and
there is nothing secret in the answers. https://www.envoyproxy.io/docs: "xDS REST-JSON".
"""

from typing import Annotated, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from meter.api.services import FromOutside

MAX_VERSION_CHARS: Final = 100
NOT_MODIFIED: Final = 304

router = APIRouter(include_in_schema=False)


class _Asked(BaseModel):
    """The members of Envoy's messages that are read; there are many more."""

    model_config = ConfigDict(extra="ignore")


class NodeBody(_Asked):
    """The Envoy that asks."""

    id: str = ""


class ErrorBody(_Asked):
    """The reason why the last version was refused, from a client that says it."""

    message: str = ""


class DiscoveryBody(_Asked):
    """The question for all clusters, from an Envoy that has a version of them."""

    node: NodeBody = NodeBody()
    version_info: Annotated[str, Field(max_length=MAX_VERSION_CHARS)] = ""
    error_detail: ErrorBody | None = None


@router.post("/v3/discovery:clusters")
async def discover_clusters(body: DiscoveryBody, outside: FromOutside) -> Response:
    """Return all clusters, or 304 where the Envoy has them."""
    publisher = outside.clusters
    if publisher is None:
        raise HTTPException(404)
    refusal = None if body.error_detail is None else body.error_detail.message
    clusters = publisher.asked_by(body.node.id, body.version_info, refusal)
    if clusters is None:
        return Response(status_code=NOT_MODIFIED)
    return Response(clusters.body, media_type="application/json")
