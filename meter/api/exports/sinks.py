"""Sinks: the systems that usage is sent to, as administrators make, test, pause and end them."""

import json
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Response, status
from pydantic import ConfigDict, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import SHORT_ID, Body, Instant, Page, PageQuery, Reply, either, path_id
from meter.api.problems import ProblemError
from meter.api.services import FromCursors, FromOutside
from meter.exports.sink import (
    MAX_CREDENTIAL_CHARS,
    MAX_URL_CHARS,
    ParkedEvent,
    Sink,
    SinkKind,
    SinkState,
    SinkTerms,
)
from meter.exports.sinks import Sinks
from meter.sealing import SecretText

router = APIRouter(prefix="/api/v1/admin/sinks", tags=["Sinks"], dependencies=AdministratorsOnly)

SinkId = Annotated[str, path_id("sink_id", SHORT_ID, "there is no such sink", "lago")]
Position = Annotated[int, Path(ge=1, le=2**63 - 1, description="The `position` of the event")]
_CODE: Final = Field(min_length=1, max_length=100, pattern=r"^[!-~]+$")


async def _sinks(outside: FromOutside) -> Sinks:
    if outside.sinks is None:
        raise ProblemError(404, "route_not_found", "this meter sends usage to no other systems")
    return outside.sinks


FromSinks = Annotated[Sinks, Depends(_sinks)]


class SinkBody(Body):
    """The settings of a sink. `from_beginning` counts when the sink is made."""

    model_config = ConfigDict(
        json_schema_extra=either(
            {"kind": {"const": SinkKind.LAGO.value}, "source": "null"},
            {
                "kind": {"const": SinkKind.CLOUD_EVENTS.value},
                "source": "string",
                "plan_code": "null",
            },
        )
    )

    kind: Annotated[SinkKind, Field(strict=False)]
    url: str = Field(
        min_length=8,
        max_length=MAX_URL_CHARS,
        json_schema_extra={
            "pattern": r"^https?://[a-z0-9]+([.-][a-z0-9]+)*(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._~/-]*)?$"
        },
        description="Of Lago its base address; of CloudEvents where events are posted",
        examples=["https://lago.example"],
    )
    event_code: Annotated[str, _CODE] = Field(
        default="llm_usage", description="Lago's billable metric, or the type of CloudEvents"
    )
    source: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")] | None = Field(
        default=None, description="The source of CloudEvents, which need one"
    )
    plan_code: Annotated[str, _CODE] | None = Field(
        default=None,
        description="Lago's plan under which each user gets a customer and a subscription",
    )
    credential: (
        Annotated[str, Field(min_length=1, max_length=MAX_CREDENTIAL_CHARS, pattern=r"^[!-~]+$")]
        | None
    ) = Field(default=None, description="Sent as a bearer token; left out, the stored one stays")
    from_beginning: bool = Field(
        default=False,
        description="Send all usage that is kept, and not only what comes from now on",
    )


class SinkReply(Reply):
    """A sink and how far it is. The credential is never shown."""

    id: str = Field(examples=["lago"])
    kind: SinkKind
    url: str
    event_code: str
    source: str | None
    plan_code: str | None
    has_credential: bool
    state: SinkState
    position: int = Field(description="All usage up to it was taken, or is parked")
    behind: int = Field(description="Positions after it; not all are usage")
    lag_seconds: float = Field(description="The age of the oldest usage that it did not take")
    sent: int
    parked: int
    failures: int = Field(description="Attempts since it last took something")
    error: str | None
    next_attempt_at: Instant
    created_at: Instant

    @classmethod
    def from_sink(cls, sink: Sink) -> "SinkReply":
        terms = sink.terms
        return cls(
            id=sink.id,
            kind=terms.kind,
            url=terms.url,
            event_code=terms.event_code,
            source=terms.source,
            plan_code=terms.plan_code,
            has_credential=sink.has_credential,
            state=sink.state,
            position=sink.position,
            behind=sink.behind,
            lag_seconds=round(sink.lag_s, 1),
            sent=sink.sent,
            parked=sink.parked,
            failures=sink.failures,
            error=sink.error,
            next_attempt_at=sink.next_attempt_at,
            created_at=sink.created_at,
        )


class SinkListReply(Reply):
    """All sinks."""

    data: list[SinkReply]


class SinkTestReply(Reply):
    """The answer of a sink to a test that bills nobody."""

    ok: bool
    error: str | None


class ParkedEventReply(Reply):
    """An event that a sink refuses, and why."""

    position: int
    user_id: str
    event: dict[str, Any]
    error: str
    parked_at: Instant
    is_replayed: bool = Field(description="It is about to be sent again")

    @classmethod
    def from_parked(cls, parked: ParkedEvent) -> "ParkedEventReply":
        return cls(
            position=parked.position,
            user_id=parked.account_id,
            event=json.loads(parked.event),
            error=parked.error,
            parked_at=parked.parked_at,
            is_replayed=parked.is_replayed,
        )


class ParkedEventPageReply(Page):
    """Parked events, oldest first."""

    data: list[ParkedEventReply]


class ReplayBody(Body):
    """The event to send again; left out, all parked ones."""

    position: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None


class ReplayReply(Reply):
    """The number of events that are sent again."""

    events: int


@router.get("", summary="List sinks")
async def list_sinks(sinks: FromSinks) -> SinkListReply:
    """List the systems that usage is sent to, with how far each is."""
    return SinkListReply(data=[SinkReply.from_sink(one) for one in await sinks.store.list_all()])


@router.get("/{sink_id}", summary="Get a sink")
async def get_sink(sink_id: SinkId, sinks: FromSinks) -> SinkReply:
    """Return a sink and how far it is."""
    return SinkReply.from_sink(await sinks.store.get(sink_id))


@router.put(
    "/{sink_id}",
    summary="Make or change a sink",
    responses={201: {"model": SinkReply, "description": "New"}},
)
async def put_sink(
    sink_id: SinkId, body: SinkBody, actor: FromAdministrator, sinks: FromSinks, response: Response
) -> SinkReply:
    """Make a sink (201), or change its settings (200); it is tried at once."""
    terms = SinkTerms(body.kind, body.url, body.event_code, body.source, body.plan_code)
    credential = None if body.credential is None else SecretText(body.credential)
    is_new = await sinks.store.put(sink_id, terms, credential, body.from_beginning, actor)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return SinkReply.from_sink(await sinks.store.get(sink_id))


@router.post("/{sink_id}/test", summary="Test a sink")
async def check_sink(sink_id: SinkId, actor: FromAdministrator, sinks: FromSinks) -> SinkTestReply:
    """Ask Lago for the billable metric, or send a CloudEvent of the type `tollkeeper.test`."""
    error = await sinks.check(sink_id)
    return SinkTestReply(ok=error is None, error=error)


@router.post("/{sink_id}/pause", summary="Pause a sink")
async def pause_sink(sink_id: SinkId, actor: FromAdministrator, sinks: FromSinks) -> SinkReply:
    """Send nothing until the sink is resumed. It keeps its position, and history waits for it."""
    return SinkReply.from_sink(await sinks.store.set_state(sink_id, SinkState.PAUSED, actor))


@router.post("/{sink_id}/resume", summary="Resume a sink")
async def resume_sink(sink_id: SinkId, actor: FromAdministrator, sinks: FromSinks) -> SinkReply:
    """Send again, from where the sink was paused; at once, also where attempts have failed."""
    return SinkReply.from_sink(await sinks.store.set_state(sink_id, SinkState.ACTIVE, actor))


@router.post("/{sink_id}/end", summary="End a sink")
async def end_sink(sink_id: SinkId, actor: FromAdministrator, sinks: FromSinks) -> SinkReply:
    """Send nothing any more, and delete the credential. History no longer waits for the sink."""
    return SinkReply.from_sink(await sinks.store.set_state(sink_id, SinkState.ENDED, actor))


@router.get("/{sink_id}/parked", summary="List the events that a sink refuses")
async def list_parked_events(
    sink_id: SinkId, query: Annotated[PageQuery, Query()], cursors: FromCursors, sinks: FromSinks
) -> ParkedEventPageReply:
    """List the events that the sink refuses, oldest first, with its reasons."""
    page, cursor = await cursors.page(
        f"parked-events:{sink_id}",
        query,
        partial(sinks.store.list_parked, sink_id),
        lambda last: (last.position,),
        int,
    )
    return ParkedEventPageReply.of([ParkedEventReply.from_parked(one) for one in page], cursor)


@router.post("/{sink_id}/parked/replay", summary="Send parked events again")
async def replay_parked_events(
    sink_id: SinkId, body: ReplayBody, actor: FromAdministrator, sinks: FromSinks
) -> ReplayReply:
    """Send one parked event again, or all; those that are refused again stay parked."""
    return ReplayReply(events=await sinks.store.replay(sink_id, body.position, actor))


@router.delete("/{sink_id}/parked/{position}", status_code=204, summary="Discard a parked event")
async def discard_parked_event(
    sink_id: SinkId, position: Position, actor: FromAdministrator, sinks: FromSinks
) -> None:
    """Discard an event that a sink refuses; the sink never gets it."""
    await sinks.store.discard(sink_id, position, actor)
