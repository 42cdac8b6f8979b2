"""Bodies of requests, read as strictly as any provider might read them (R7).

A body that two parsers could read differently is refused: duplicate names at any depth, NaN,
other encodings, text after the object. Edits are byte splices, because writing the body anew
would change the order of members and the digits of large numbers.

The cost of the parse is bounded before (`weight.py`). Inline images are taken out first, so the
text that is parsed is shorter than what was sent; edits are placed in what was sent.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final, NoReturn

from authz.decision import Deny, Edit, Reason, Refused, deny
from authz.endpoints.weight import SMALL_BODY_BYTES, hollow_out, refuse_heavy
from authz.request import AuthRequest
from meter.values import light_value

_SPACE = re.compile(r"[ \t\n\r]*")
_USUAL_TYPE = "application/json"
_JSON_TYPE = re.compile(
    r'\s*application/json\s*(;\s*charset\s*=\s*("utf-8"|utf-8)\s*)?', re.ASCII | re.IGNORECASE
)
# Members of the body itself: they are walked again to find the place of an edit.
MAX_MEMBERS: Final = 1_000


@light_value
class Body:
    """A parsed body: its text, its size in bytes, its top-level members.

    The text has a stand-in for each long inline image: `cuts` says how many bytes are missing
    behind which offset, `inline_chars` how long the URL is.
    """

    text: str = field(repr=False)
    size_bytes: int
    members: dict[str, Any] = field(repr=False)
    cuts: tuple[tuple[int, int], ...] = ()
    inline_chars: Mapping[str, int] = field(default_factory=dict, repr=False)


def read_body(request: AuthRequest, max_bytes: int) -> Body | Deny:
    """Return the JSON object that a request sends, or why the body is refused."""
    if len(request.body) > max_bytes:
        return deny(Reason.REQUEST_TOO_LARGE, f"The body is larger than {max_bytes // 2**20} MiB.")
    types = request.values("content-type")
    if len(types) != 1 or (types[0] != _USUAL_TYPE and _JSON_TYPE.fullmatch(types[0]) is None):
        return deny(Reason.UNSUPPORTED_CONTENT_TYPE)
    for encoding in request.values("content-encoding"):
        if encoding.strip().lower() != "identity":
            return deny(Reason.UNSUPPORTED_CONTENT_ENCODING)
    return parse(request.body)


def parse(raw: bytes) -> Body | Deny:
    """Parse bytes that claim to be a JSON object; return why they are refused otherwise."""
    if raw.startswith(codecs.BOM_UTF8):
        return deny(
            Reason.INVALID_JSON,
            "The body begins with a byte order mark (BOM, EF BB BF). Send UTF-8 without it.",
        )
    hollow = hollow_out(raw) if len(raw) > SMALL_BODY_BYTES else None
    kept = raw if hollow is None else hollow.text
    if heavy := refuse_heavy(kept):
        return heavy
    try:
        text = kept.decode("utf-8")
        members = _decode(text)
    except Refused as refused:
        return refused.deny
    except RecursionError:
        return deny(Reason.INVALID_JSON, "The body is nested too deeply.")
    except json.JSONDecodeError as error:
        return deny(Reason.INVALID_JSON, f"The body is not valid JSON: {error.msg}.")
    except UnicodeDecodeError:
        return deny(Reason.INVALID_JSON, "The body is not valid UTF-8.")
    except ValueError:
        return deny(Reason.INVALID_JSON)
    if not isinstance(members, dict):
        return deny(Reason.INVALID_JSON, "The body must be a JSON object.")
    if len(members) > MAX_MEMBERS:
        return deny(Reason.REQUEST_TOO_LARGE, f"The body has more than {MAX_MEMBERS} members.")
    if hollow is None:
        return Body(text, len(raw), members)
    return Body(text, len(raw), members, hollow.cuts, hollow.inline_chars)


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


def item_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each item in a text that is known to be a JSON list, in characters."""
    at = _skip_space(text, text.index("[") + 1)
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        yield at, end
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)


def byte_offset(body: Body, at: int) -> int:
    """Return the offset in the sent bytes of the character at `at`."""
    if len(body.text) == body.size_bytes:
        return at
    offset = len(body.text[:at].encode("utf-8"))
    return offset + sum(missing for cut_at, missing in body.cuts if cut_at <= offset)


def replace_value(body: Body, start: int, end: int, text: str) -> Edit:
    """Return the edit that replaces the value from character `start` to `end` by `text`."""
    offset = byte_offset(body, start)
    return Edit(offset, byte_offset(body, end) - offset, text)


def _decode(text: str) -> Any:
    """Return the JSON value that a text is. Raises what the decoder raises."""
    if text[:1] == "{":
        # Without the searches for space at both ends, which take as long as the parse.
        try:
            found, end = _SCAN(text, 0)
        except StopIteration:
            end = -1
        if end == len(text) or (end > 0 and _skip_space(text, end) == len(text)):
            return found
    return _DECODER.decode(text)


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
_SCAN: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once  # type: ignore[attr-defined]
