"""Bodies of requests, read as strictly as any provider might read them (R7).

A body that two parsers could read differently is refused: duplicate names at any depth, NaN,
other encodings, text after the object. Edits are byte splices, because writing the body anew
would change the order of members and the digits of large numbers.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from authz.decision import Deny, Edit, Reason, Refused, deny
from authz.request import AuthRequest

_SPACE = re.compile(r"[ \t\n\r]*")
_JSON_TYPE = re.compile(
    r'\s*application/json\s*(;\s*charset\s*=\s*("utf-8"|utf-8)\s*)?', re.ASCII | re.IGNORECASE
)
# A body has at least as many separators as values. All other checks wait while one body is
# parsed, and eight million empty objects fit into 24 MiB. No model reads as much text as this.
MAX_SEPARATORS: Final = 1_000_000
# Members of the body itself: they are walked again to find the place of an edit.
MAX_MEMBERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Body:
    """A parsed body: its text, its size in bytes, its top-level members."""

    text: str = field(repr=False)
    size_bytes: int
    members: dict[str, Any] = field(repr=False)


def read_body(request: AuthRequest, max_bytes: int) -> Body | Deny:
    """Return the JSON object that a request sends, or why the body is refused."""
    if len(request.body) > max_bytes:
        return deny(Reason.REQUEST_TOO_LARGE, f"The body is larger than {max_bytes // 2**20} MiB.")
    types = request.values("content-type")
    if len(types) != 1 or _JSON_TYPE.fullmatch(types[0]) is None:
        return deny(Reason.UNSUPPORTED_CONTENT_TYPE)
    for encoding in request.values("content-encoding"):
        if encoding.strip().lower() != "identity":
            return deny(Reason.UNSUPPORTED_CONTENT_ENCODING)
    return parse(request.body)


def parse(raw: bytes) -> Body | Deny:
    """Parse bytes that claim to be a JSON object; return why they are refused otherwise."""
    # Separators inside strings count as well: to tell them apart would mean to parse.
    if (
        len(raw) > MAX_SEPARATORS
        and raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_SEPARATORS
    ):
        message = f"The body has more than {MAX_SEPARATORS} commas and opening brackets."
        return deny(Reason.REQUEST_TOO_LARGE, message)
    try:
        text = raw.decode("utf-8")
        members = _DECODER.decode(text)
    except Refused as refused:
        return refused.deny
    except RecursionError:
        return deny(Reason.INVALID_JSON, "The body is nested too deeply.")
    except json.JSONDecodeError as error:
        return deny(Reason.INVALID_JSON, f"The body is not valid JSON: {error.msg}.")
    except ValueError:
        return deny(Reason.INVALID_JSON)
    if not isinstance(members, dict):
        return deny(Reason.INVALID_JSON, "The body must be a JSON object.")
    if len(members) > MAX_MEMBERS:
        return deny(Reason.REQUEST_TOO_LARGE, f"The body has more than {MAX_MEMBERS} members.")
    return Body(text, len(raw), members)


def member_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of each value in a text that is known to be a JSON object.

    Start and end are counted in characters.
    """
    at = _skip_space(text, text.index("{") + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        start = _skip_space(text, _skip_space(text, at) + 1)
        _, end = _DECODER.raw_decode(text, start)
        yield name, start, end
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)


def byte_offset(body: Body, at: int) -> int:
    """Return the offset in bytes of the character at `at`."""
    if len(body.text) == body.size_bytes:
        return at
    return len(body.text[:at].encode("utf-8"))


def replace_value(body: Body, start: int, end: int, text: str) -> Edit:
    """Return the edit that replaces the value from character `start` to `end` by `text`."""
    removed = body.text[start:end].encode("utf-8")
    return Edit(byte_offset(body, start), len(removed), text)


def apply_edits(raw: bytes, edits: tuple[Edit, ...]) -> bytes:
    """Return the edited body: the reference for the splices that Envoy makes."""
    for edit in reversed(edits):
        end = edit.offset + edit.remove
        raw = raw[: edit.offset] + edit.insert.encode() + raw[end:]
    return raw


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Refused(deny(Reason.DUPLICATE_KEY))
    return members


def _no_constant(name: str) -> NoReturn:
    raise Refused(deny(Reason.INVALID_JSON, f"The body is not valid JSON: {name} is no number."))


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_no_constant)
