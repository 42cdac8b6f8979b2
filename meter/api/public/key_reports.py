"""Leaked keys: everybody with the value of a key may revoke it, and learns nothing else."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from pydantic import Field, SecretStr

from meter.api.fields import Body, Reply
from meter.api.problems import ProblemError
from meter.api.services import FromKeys
from meter.identity.keys.key_text import parse

MAX_REPORTED_CHARS: Final = 512
# Every reply takes this long, so that its time does not tell whether the key exists.
ANSWER_AFTER_S: Final = 0.25
MOST_REPORTS_AT_ONCE: Final = 64
RETRY_AFTER_S: Final = 1

router = APIRouter(prefix="/api/v1/key-reports", tags=["Leaked keys"])


class KeyReportBody(Body):
    """A key that became public."""

    key: Annotated[SecretStr, Field(min_length=1, max_length=MAX_REPORTED_CHARS, strict=False)]


class KeyReportedReply(Reply):
    """The reply, which is always the same."""

    status: str = Field(examples=["received"])


class RunningReports:
    """The number of reports that are being answered now, which is limited: anybody may report."""

    def __init__(self) -> None:
        self.count = 0


async def _running_reports(request: Request) -> RunningReports:
    running: RunningReports = request.app.state.running_reports
    return running


FromRunningReports = Annotated[RunningReports, Depends(_running_reports)]


@router.post("", status_code=202, summary="Report a leaked key")
async def report_key(
    body: KeyReportBody, running: FromRunningReports, keys: FromKeys
) -> KeyReportedReply:
    """Revoke the key with this value. The reply does not tell whether there is such a key.

    No credential is needed: everybody who knows the value could do more with it than revoke it.
    """
    if running.count >= MOST_REPORTS_AT_ONCE:
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise ProblemError(429, "too_many_reports", "too many reports at once; try again", headers)
    running.count += 1
    presented = parse(body.key.get_secret_value().strip())
    try:
        answer_time = asyncio.sleep(ANSWER_AFTER_S)
        if presented is None:
            await answer_time
        else:
            await asyncio.gather(keys.report_leak(presented.plain.reveal()), answer_time)
    finally:
        running.count -= 1
    return KeyReportedReply(status="received")
