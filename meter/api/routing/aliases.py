"""Aliases: names of ours for models, and the redirects of retired ones."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Body, Like, Reply
from meter.api.services import FromAliases
from meter.providers.openrouter import ROUTING_SUFFIXES
from meter.routing.route import MAX_NAME_CHARS, ModelAlias

router = APIRouter(
    prefix="/api/v1/admin/aliases", tags=["Aliases"], dependencies=AdministratorsOnly
)

# No segment of a path begins with a dot or is empty, because proxies rewrite such paths.
_PART: Final = r"[A-Za-z0-9~][A-Za-z0-9~._:+-]*"
AliasName = Annotated[
    str,
    Like(
        rf"(?!.*({'|'.join(ROUTING_SUFFIXES)})$){_PART}(/{_PART})*",
        "a name has letters, digits and ~._:+- and parts that a slash divides; each part begins"
        f" with a letter or digit. It does not end with {', '.join(ROUTING_SUFFIXES)}, which tell"
        " OpenRouter how to serve a request and stand behind any alias",
    ),
    Path(max_length=MAX_NAME_CHARS, examples=["fast"]),
]


class AliasBody(Body):
    """The model that a name means."""

    model: Annotated[
        str,
        Like(r"[!-~]+", "a model's id has visible ASCII characters only"),
        Field(min_length=1, max_length=MAX_NAME_CHARS, examples=["openai/gpt-4o-mini"]),
    ]
    is_redirect: bool = Field(
        default=False,
        description="The name is that of a model; it means the other one once nobody offers it",
    )


class AliasReply(Reply):
    """A name and the model that it means."""

    name: str
    model: str = Field(validation_alias="model_id")
    is_redirect: bool


class AliasListReply(Reply):
    """All aliases."""

    data: list[AliasReply]


@router.get("", summary="List aliases")
async def list_aliases(aliases: FromAliases) -> AliasListReply:
    """List all aliases, in order of their names."""
    return AliasListReply.model_validate({"data": await aliases.list_all()})


@router.put(
    "/{name:path}",
    summary="Set an alias",
    responses={201: {"model": AliasReply, "description": "New"}},
)
async def put_alias(
    name: AliasName,
    body: AliasBody,
    actor: FromAdministrator,
    aliases: FromAliases,
    response: Response,
) -> AliasReply:
    """Create an alias (201) or change one (200); in effect within a few seconds.

    The model must be one that somebody offers. Slashes in the name are written as they are.
    """
    alias = ModelAlias(name, body.model, body.is_redirect)
    if await aliases.put(actor, alias):
        response.status_code = 201
    return AliasReply.model_validate(alias)


@router.delete("/{name:path}", status_code=204, summary="Remove an alias")
async def delete_alias(name: AliasName, actor: FromAdministrator, aliases: FromAliases) -> None:
    """Remove an alias. Requests that name it are answered 404 from then on."""
    await aliases.remove(actor, name)
