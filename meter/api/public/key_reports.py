"""Keys that were found in public: whoever has the value may end the key, and learns nothing."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from pydantic import Field, SecretStr

from meter.api.fields import Body, Reply
from meter.api.problems import ProblemError
from meter.api.services import FromKeys
from meter.identity.keys.key_service import KeyService
from meter.identity.keys.key_text import parse

MAX_REPORTED_CHARS: Final = 512
# Every report is answered so long after it came, whether there is such a key or not.
ANSWER_AFTER_S: Final = 0.25
MOST_REPORTS_AT_ONCE: Final = 64
RETRY_AFTER_S: Final = 1

router = APIRouter(prefix="/api/v1/key-reports", tags=["Leaked keys"])


class KeyReportBody(Body):
    """A key that somebody found where it should not be."""

    key: Annotated[SecretStr, Field(min_length=1, max_length=MAX_REPORTED_CHARS, strict=False)]


class KeyReportedReply(Reply):
    """The one answer."""

    status: str = Field(examples=["received"])


class RunningReports:
    """The count of reports that are being answered now: anybody may send them."""

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
    """End the key with this value, if there is one. The answer never tells.

    No credential is needed: whoever knows the value could do more with it than end it.
    """
    if running.count >= MOST_REPORTS_AT_ONCE:
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise ProblemError(429, "too_many_reports", "too many reports at once; try again", headers)
    running.count += 1
    try:
        await asyncio.gather(
            _revoke(keys, body.key.get_secret_value()), asyncio.sleep(ANSWER_AFTER_S)
        )
    finally:
        running.count -= 1
    return KeyReportedReply(status="received")


async def _revoke(keys: KeyService, text: str) -> None:
    presented = parse(text.strip())
    if presented is not None:
        await keys.report_leak(presented.plain.reveal())
