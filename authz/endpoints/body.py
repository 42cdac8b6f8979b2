"""The body, read as strictly as any provider might read it (rule R7).

Whatever two parsers could read differently is refused: duplicate names at any depth, NaN, other
encodings, trailing text. Edits are byte splices, because writing the body anew would change the
order of members and the digits of large numbers.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from authz.decision import Deny, Edit, Reason, Refused, deny
from authz.request import AuthRequest
from meter.providers.openrouter.broadcast import TAG_MEMBER

_SPACE = re.compile(r"[ \t\n\r]*")
_CHARSET = re.compile(r'\s*charset\s*=\s*("utf-8"|utf-8)\s*', re.IGNORECASE)
_LIMIT_MEMBERS: Final = ("max_tokens", "max_completion_tokens")
_TRACE_MEMBER: Final = "trace"
# Values, as far as their separators tell. Everybody's checks wait while one body is parsed, and
# eight million empty objects fit into 24 MiB. More text than this has no model's context.
MAX_SEPARATORS: Final = 1_000_000
# Of the body itself, which are walked again to find where an edit belongs.
MAX_MEMBERS: Final = 1_000
# Where values stand: start and end in characters, by the member's name.
_Spans = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Body:
    """A parsed body: its text, its size in bytes, its top-level members."""

    text: str = field(repr=False)
    size_bytes: int
    members: dict[str, Any] = field(repr=False)


def read_body(request: AuthRequest, max_bytes: int) -> Body | Deny:
    """Read a request's JSON object, or say what is wrong with it."""
    if len(request.body) > max_bytes:
        return deny(Reason.REQUEST_TOO_LARGE, f"The body is larger than {max_bytes // 2**20} MiB.")
    refusal = _refuse_headers(request)
    return refusal if refusal is not None else parse(request.body)


def parse(raw: bytes) -> Body | Deny:
    """Parse bytes that claim to be a JSON object."""
    if _count_separators(raw) > MAX_SEPARATORS:
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


def edit_body(body: Body, max_tokens: int | None, report_tag: str | None) -> tuple[Edit, ...]:
    """The edits, ascending, that write a limit and a report tag; None writes nothing.

    The limit is for a body that names none. The tag goes where the provider's report of the
    request will have it (meter/providers/openrouter/broadcast.py).
    """
    wanted = [] if max_tokens is None else [*_LIMIT_MEMBERS]
    wanted += [] if report_tag is None else [_TRACE_MEMBER]
    spans = _find_spans(body, wanted)
    changes: list[Edit | str] = []
    if max_tokens is not None:
        changes.append(_limit_reply(body, spans, max_tokens))
    if report_tag is not None:
        changes.append(_tag_report(body, spans, report_tag))
    in_place = [change for change in changes if isinstance(change, Edit)]
    new_members = [change for change in changes if isinstance(change, str)]
    return (*_insert(body, new_members), *sorted(in_place, key=lambda edit: edit.offset))


def apply_edits(raw: bytes, edits: tuple[Edit, ...]) -> bytes:
    """Return the body with the edits applied; the reference for the splice in Envoy."""
    for edit in reversed(edits):
        end = edit.offset + edit.remove
        raw = raw[: edit.offset] + edit.insert.encode() + raw[end:]
    return raw


def _count_separators(raw: bytes) -> int:
    """At least as many as there are values, without a look at what stands in strings."""
    if len(raw) <= MAX_SEPARATORS:
        return 0
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _refuse_headers(request: AuthRequest) -> Deny | None:
    types = request.values("content-type")
    if len(types) != 1 or not _is_utf8_json(types[0]):
        return deny(Reason.UNSUPPORTED_CONTENT_TYPE)
    for encoding in request.values("content-encoding"):
        if encoding.strip().lower() != "identity":
            return deny(Reason.UNSUPPORTED_CONTENT_ENCODING)
    return None


def _is_utf8_json(content_type: str) -> bool:
    if content_type == "application/json":
        return True
    media_type, *parameters = content_type.split(";")
    return (
        media_type.strip().lower() == "application/json"
        and len(parameters) <= 1
        and all(_CHARSET.fullmatch(parameter) for parameter in parameters)
    )


def _limit_reply(body: Body, spans: _Spans, max_tokens: int) -> Edit | str:
    """In the place of the first limit that is null, else a member of its own."""
    for name, span in spans.items():
        if name in _LIMIT_MEMBERS and body.members[name] is None:
            return _replace(body, span, str(max_tokens))
    return f'"max_tokens":{max_tokens}'


def _tag_report(body: Body, spans: _Spans, tag: str) -> Edit | str:
    """Our trace id; where the client has a trace of its own, a key of ours beside the client's.

    Always: a request that nobody can report would count as not billed.
    """
    trace = f'{{"trace_id":"{tag}"}}'
    if _TRACE_MEMBER not in spans:
        return f'"{_TRACE_MEMBER}":{trace}'
    found, span = body.members[_TRACE_MEMBER], spans[_TRACE_MEMBER]
    if not isinstance(found, dict):
        return _replace(body, span, trace)
    for name, start, end in _member_spans(body.text[slice(*span)]):
        if name == TAG_MEMBER:
            return _replace(body, (span[0] + start, span[0] + end), f'"{tag}"')
    comma = "," if found else ""
    after_brace = _byte_offset(body, span[0] + 1)
    return Edit(after_brace, 0, f'"{TAG_MEMBER}":"{tag}"{comma}')


def _replace(body: Body, span: tuple[int, int], text: str) -> Edit:
    start, end = span
    removed = body.text[start:end].encode("utf-8")
    return Edit(_byte_offset(body, start), len(removed), text)


def _insert(body: Body, new_members: list[str]) -> tuple[Edit, ...]:
    """One edit that puts these before all other members, hence before all other edits."""
    if not new_members:
        return ()
    comma = "," if body.members else ""
    return (Edit(body.text.index("{") + 1, 0, ",".join(new_members) + comma),)


def _find_spans(body: Body, names: Sequence[str]) -> _Spans:
    """Return the spans of the values of these top-level members, where they are present."""
    if not any(name in body.members for name in names):
        return {}
    return {name: (start, end) for name, start, end in _member_spans(body.text) if name in names}


def _member_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Walk the top-level object of a text that is known to be valid."""
    at = _skip_space(text, text.index("{") + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        start = _skip_space(text, _skip_space(text, at) + 1)
        _, end = _DECODER.raw_decode(text, start)
        yield name, start, end
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _byte_offset(body: Body, at: int) -> int:
    if len(body.text) == body.size_bytes:
        return at
    return len(body.text[:at].encode("utf-8"))


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Refused(deny(Reason.DUPLICATE_KEY))
    return members


def _no_constant(name: str) -> NoReturn:
    raise Refused(deny(Reason.INVALID_JSON, f"The body is not valid JSON: {name} is no number."))


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_no_constant)
