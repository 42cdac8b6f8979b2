"""Provider reports: a provider's reports of generations that ended (OpenRouter's Broadcast).

A report is used for one fact: the generation id of a request that may not be settled yet. The cost
is then asked for at the provider (docs/adr/0010-provider-reports.md).
"""

import hmac
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, Counter
from pydantic import Field
from starlette.exceptions import HTTPException

from meter.api.fields import Reply
from meter.api.problems import ProblemError
from meter.api.services import FromOutside, ProviderReports
from meter.errors import InvalidAmount
from meter.lookups.pending import ReportedGeneration
from meter.money import picos_from_decimal
from meter.providers import openrouter
from meter.providers.openrouter.broadcast import read_reports
from meter.providers.provider import Report

# This only describes the scheme in the OpenAPI document. The check is below.
_token_scheme = HTTPBearer(
    scheme_name="providerReportsToken",
    description="The token that the provider was given: `TOLLKEEPER_PROVIDER_REPORTS_TOKEN`.",
    auto_error=False,
)
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "OTLP JSON, as OpenRouter's Broadcast sends it; empty in a test.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"resourceSpans": {"type": "array", "items": {"type": "object"}}},
                }
            }
        },
    }
}

router = APIRouter(prefix="/api/v1/provider-reports", tags=["Provider reports"])


class ReportMetrics:
    """Counters of the reports that arrived, by outcome."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = Counter(
            "tollkeeper_provider_reports",
            "Reports of finished generations by outcome (noted, ignored)",
            ("outcome",),
            registry=registry,
        )
        self.noted = counter.labels("noted")
        self.ignored = counter.labels("ignored")


class ProviderReportsReply(Reply):
    """The number of reports with a fact that was not known yet."""

    noted: int = Field(examples=[1])


def find_reports(request: Request, outside: FromOutside) -> ProviderReports:
    """Return the services for provider reports.

    Raises HTTPException (404) if reports are switched off, ProblemError (401) without the token.
    """
    reports = outside.provider_reports
    if reports is None:
        raise HTTPException(404)
    presented = request.headers.getlist("authorization")
    scheme, _, token = presented[0].partition(" ") if len(presented) == 1 else ("", "", "")
    expected = reports.token.reveal().encode()
    is_same = hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), expected)
    if scheme.lower() != "bearer" or not is_same:
        raise ProblemError(
            401,
            "unauthorized",
            "the token of provider reports is required",
            {"WWW-Authenticate": 'Bearer realm="tollkeeper"'},
        )
    return reports


@router.post(
    f"/{openrouter.ID}",
    summary="Report generations",
    operation_id="post_openrouter_reports",
    openapi_extra=_BODY,
    dependencies=[Depends(_token_scheme)],
)
@router.put(
    f"/{openrouter.ID}",
    summary="Report generations (the same with PUT)",
    operation_id="put_openrouter_reports",
    openapi_extra=_BODY,
    dependencies=[Depends(_token_scheme)],
)
async def take_openrouter_reports(
    request: Request, reports: Annotated[ProviderReports, Depends(find_reports)]
) -> ProviderReportsReply:
    """Store the ids of the generations that answered requests (OpenRouter's Broadcast).

    May be repeated. 503 while Postgres does not answer, so that the sender tries again.
    """
    found = read_reports(await request.body())
    ours = [
        ReportedGeneration(hold_id, report.generation_id, _cost_picos(report))
        for report in found
        if (hold_id := reports.tags.hold_id(report.tag)) is not None
    ]
    noted = await reports.generations.note(ours) if ours else 0
    metrics: ReportMetrics = request.app.state.report_metrics
    metrics.noted.inc(noted)
    metrics.ignored.inc(len(found) - noted)
    return ProviderReportsReply(noted=noted)


def _cost_picos(report: Report) -> int | None:
    """Return the cost in the report; None for none, and for a number that is not an amount."""
    try:
        return None if report.cost_usd is None else picos_from_decimal(report.cost_usd)
    except InvalidAmount:
        return None
