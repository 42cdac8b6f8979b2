"""Health: liveness, readiness and metrics. For this machine, not for clients."""

import asyncio
from typing import Final

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from meter.api.services import FromOutside, Readiness, ReadinessProbe
from meter.postgres.pool import is_reachable

PROBE_TIMEOUT_S: Final = 2.0

router = APIRouter(tags=["Health"])
_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class AliveReply(BaseModel):
    """The state of the process."""

    status: str = Field(examples=["ok"])


class ComponentReply(BaseModel):
    """The state of a component that the meter depends on."""

    status: str = Field(examples=["ready", "unready"])
    reason: str | None
    required: bool


class ReadyReply(BaseModel):
    """The state of the meter, component by component."""

    status: str = Field(examples=["ready", "unready"])
    components: dict[str, ComponentReply]


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> AliveReply:
    """Answer while the process runs, also if a component is down."""
    return AliveReply(status="ok")


@router.get(
    "/readyz",
    summary="Is the meter ready?",
    responses={503: {"model": ReadyReply, "description": "A required component is down"}},
)
async def readyz(outside: FromOutside, response: Response) -> ReadyReply:
    """Name the components and why one is not ready; 503 if a required component is down."""

    async def postgres() -> Readiness:
        if await is_reachable(outside.services.pool):
            return Readiness(is_ready=True)
        return Readiness(is_ready=False, reason="Postgres does not answer")

    probes: dict[str, ReadinessProbe] = {"postgres": postgres, **outside.readiness}
    states = await asyncio.gather(*(_probe(name, probe) for name, probe in probes.items()))
    found = dict(zip(probes, states, strict=True))
    is_ready = all(one.is_ready or not one.is_required for one in found.values())
    if not is_ready:
        response.status_code = 503
    return ReadyReply(
        status=_word(is_ready),
        components={
            name: ComponentReply(
                status=_word(one.is_ready), reason=one.reason, required=one.is_required
            )
            for name, one in found.items()
        },
    )


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request, outside: FromOutside) -> Response:
    """Return the metrics in the text format of Prometheus."""
    return Response(generate_latest(outside.registry), media_type=CONTENT_TYPE_LATEST)


async def _probe(name: str, probe: ReadinessProbe) -> Readiness:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await probe()
    except TimeoutError:
        return Readiness(is_ready=False, reason=f"no answer within {PROBE_TIMEOUT_S} s")
    except Exception as error:  # A broken probe must not hide the results of the others.
        _log.exception("readiness_probe_failed", component=name)
        return Readiness(is_ready=False, reason=f"the probe failed ({type(error).__name__})")


def _word(is_ready: bool) -> str:
    return "ready" if is_ready else "unready"
