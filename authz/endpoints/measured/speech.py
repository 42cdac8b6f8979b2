"""POST /audio/speech: sound of a text, billed by the characters of the text.

The reply is sound. It names no usage, so that each request is settled by the provider's record.
"""

from typing import Final

from authz.decision import Deny, Refused
from authz.endpoints.body import Body, read_body
from authz.endpoints.edits import edit_for_provider
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.members import invalid, refuse_unknown
from meter.pricing.prices import Demand, Extra
from meter.usage.endpoints import SPEECH as NAME

# Voice, speed and format change the length of the sound, which is not what is billed.
_MEMBERS: Final = frozenset(
    {
        *("model", "input", "instructions", "voice", "speed", "response_format"),
        *("stream_format", "user"),
    }
)


def bound(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded."""
    members = body.members
    try:
        refuse_unknown(members, _MEMBERS)
        if members.get("stream_format") not in (None, "audio"):
            raise invalid("stream_format", "'audio'")
        text, instructions = members.get("input"), members.get("instructions")
        if not isinstance(text, str):
            raise invalid("input", "a text")
        if not isinstance(instructions, str | None):
            raise invalid("instructions", "a text")
    except Refused as refused:
        return refused.deny
    # Providers count code points, units of UTF-16 or bytes: bytes of UTF-8 are the most of them.
    spoken = (text + (instructions or "")).encode("utf-8", "surrogatepass")
    characters = max(1, len(spoken))
    return Demand(
        characters,
        0,
        # No context, which is counted in tokens, bounds them.
        prompts=characters,
        extras=frozenset({Extra.CHARACTERS}),
    )


SPEECH: Final = Endpoint(
    name=NAME, paths=("audio/speech",), read=read_body, bound=bound, edits=edit_for_provider
)
