"""Routes: which providers serve which models."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import PROVIDER_ID, Body, Like, ModelPattern, Reply
from meter.api.services import FromRoutes
from meter.routing.route import (
    MAX_POSITION,
    MAX_PRIORITY,
    MAX_ROUTE_PROVIDERS,
    MAX_WEIGHT,
    Route,
    RouteProvider,
)

router = APIRouter(prefix="/api/v1/admin/routes", tags=["Routes"], dependencies=AdministratorsOnly)

_ID = r"[a-z][a-z0-9_-]{0,39}"
_ID_SENTENCE = "an id has up to 40 of a-z, 0-9, _ and - and begins with a letter"
RouteId = Annotated[str, Like(_ID, _ID_SENTENCE), Path(examples=["gpt"])]
ProviderId = Annotated[str, Like(PROVIDER_ID, _ID_SENTENCE), Field(examples=["openai"])]


class RouteProviderBody(Body):
    """A provider of a route."""

    provider: ProviderId
    priority: int = Field(
        default=0,
        ge=0,
        le=MAX_PRIORITY,
        description="The lowest is asked first, the others where those cannot serve",
    )
    weight: int = Field(
        default=1,
        ge=1,
        le=MAX_WEIGHT,
        description="The share of the requests, among providers of one priority",
    )


class RouteBody(Body):
    """The models of a route, and the providers that serve them; no other provider does."""

    pattern: Annotated[
        ModelPattern,
        Field(description="A model's id, or a pattern; an id takes precedence over patterns"),
    ]
    providers: list[RouteProviderBody] = Field(min_length=1, max_length=MAX_ROUTE_PROVIDERS)
    position: int = Field(
        default=100,
        ge=0,
        le=MAX_POSITION,
        description="Patterns are tried in this order, the lowest first",
    )

    def to_route(self, route_id: str) -> Route:
        """Return the route."""
        providers = (RouteProvider(o.provider, o.priority, o.weight) for o in self.providers)
        return Route(route_id, self.pattern, tuple(providers), self.position)


class RouteProviderReply(Reply):
    """A provider of a route."""

    provider: str
    priority: int
    weight: int


class RouteReply(Reply):
    """A route with its id."""

    id: str
    pattern: str
    position: int
    providers: list[RouteProviderReply]


class RouteListReply(Reply):
    """All routes."""

    data: list[RouteReply]


@router.get("", summary="List routes")
async def list_routes(routes: FromRoutes) -> RouteListReply:
    """List all routes, in the order in which their patterns are tried."""
    return RouteListReply.model_validate({"data": await routes.list_all()})


@router.get("/{route_id}", summary="Get a route")
async def get_route(route_id: RouteId, routes: FromRoutes) -> RouteReply:
    """Return one route."""
    return RouteReply.model_validate(await routes.get(route_id))


@router.put(
    "/{route_id}",
    summary="Set a route",
    responses={201: {"model": RouteReply, "description": "New"}},
)
async def put_route(
    route_id: RouteId,
    body: RouteBody,
    actor: FromAdministrator,
    routes: FromRoutes,
    response: Response,
) -> RouteReply:
    """Create a route (201) or replace one (200); in effect within a few seconds.

    Each provider must exist, and offer a model that the pattern matches.
    """
    route = body.to_route(route_id)
    if await routes.put(actor, route):
        response.status_code = 201
    return RouteReply.model_validate(route)


@router.delete("/{route_id}", status_code=204, summary="Remove a route")
async def delete_route(route_id: RouteId, actor: FromAdministrator, routes: FromRoutes) -> None:
    """Remove a route. Its models are served as without one."""
    await routes.remove(actor, route_id)
