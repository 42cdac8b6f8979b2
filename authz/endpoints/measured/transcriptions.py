"""POST /audio/transcriptions: the text of a sound, billed by the second.

The sound comes as a file of a form, as OpenAI's clients send it, or in JSON as base64, as
OpenRouter's do.
"""

import binascii
import contextlib
from typing import Any, Final

from authz.decision import Deny, Edit, Refused
from authz.endpoints.body import Body, read_body
from authz.endpoints.edits import edit_for_provider
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.measured.form import FILE_MEMBER, SoundForm, read_form
from authz.endpoints.measured.sound import most_seconds
from authz.endpoints.members import invalid, refuse_unknown
from authz.endpoints.rewriting import Rewrite
from authz.request import AuthRequest
from meter.pricing.prices import Demand, Extra, PriceCeiling
from meter.usage.endpoints import TRANSCRIPTIONS as NAME

SOUND_MEMBER: Final = "input_audio"
_ASKED: Final = ("model", "language", "prompt", "response_format", "temperature", "user")
_MEMBERS: Final = frozenset({*_ASKED, SOUND_MEMBER, "timestamp_granularities", "stream"})
_FORM_MEMBERS: Final = frozenset(
    {*_ASKED, "timestamp_granularities", "timestamp_granularities[]", "stream"}
)
_SOUND_MEMBERS: Final = frozenset({"data", "format"})


def read(request: AuthRequest, max_bytes: int) -> Body | Deny:
    """Return the form or the JSON object that a request sends, or why it is refused."""
    types = request.values("content-type")
    if not any(value.lstrip().lower().startswith("multipart/") for value in types):
        return read_body(request, max_bytes)
    try:
        return read_form(request, max_bytes)
    except Refused as refused:
        return refused.deny


def bound(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded."""
    members = body.members
    try:
        refuse_unknown(members, _FORM_MEMBERS if isinstance(body, SoundForm) else _MEMBERS)
        if members.get("stream") not in (None, False, "false"):
            raise invalid("stream", "false: transcriptions are not sent in pieces")
        if isinstance(body, SoundForm):
            if not body.file:
                raise invalid(FILE_MEMBER, "a file of sound")
            ending = body.file_name.rpartition(".")[2]
            seconds = most_seconds(body.file, ending, FILE_MEMBER, body.file_type)
        else:
            given: Any = members.get(SOUND_MEMBER)
            if not isinstance(given, dict):
                raise invalid(SOUND_MEMBER, "an object with 'data' and 'format'")
            refuse_unknown(given, _SOUND_MEMBERS, f"{SOUND_MEMBER}.")
            seconds = most_seconds(read_sound(given), str(given.get("format")), SOUND_MEMBER)
    except Refused as refused:
        return refused.deny
    return Demand(
        seconds,
        0,
        # No context, which is counted in tokens, bounds them.
        prompts=seconds,
        extras=frozenset({Extra.SECONDS}),
    )


def edit(
    body: Body,
    max_tokens: int | None,
    report_tag: str | None,
    ceiling: PriceCeiling | None,
    rewrite: Rewrite | None,
) -> tuple[Edit, ...]:
    """Return the edits of a body. It takes no tag, no limit of a reply, and no prices."""
    if not isinstance(body, SoundForm):
        return edit_for_provider(body, max_tokens, report_tag, ceiling, rewrite)
    if rewrite is None or rewrite.model is None:
        return ()
    return (Edit(*body.model_at, rewrite.model),)


def read_sound(given: dict[str, Any]) -> bytes:
    """Return the sound of `input_audio`. Raises Refused for what is no plain base64."""
    data, sound = given.get("data"), b""
    if isinstance(data, str):
        with contextlib.suppress(ValueError):
            sound = binascii.a2b_base64(data, strict_mode=True)
    if not sound:
        raise invalid(f"{SOUND_MEMBER}.data", "base64, without 'data:' before it")
    return sound


TRANSCRIPTIONS: Final = Endpoint(
    name=NAME, paths=("audio/transcriptions",), read=read, bound=bound, edits=edit
)
