"""Bounds what it costs to parse a body, before it is parsed (R16). Pure.

A parser's cost depends on members and values far more than on bytes. So they are counted first, by
calls in C that take about a millisecond for each MiB. A large body is parsed in a thread, and the
parser lets the event loop run only where an object ends. So what stands between two ends of
objects is bounded as well, so that a parse keeps the loop for some 20 ms at most.
"""

import re
import secrets
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from authz.decision import MAX_ECHO_CHARS, Deny, Reason, deny

# Up to this size the bytes alone bound the cost: a few milliseconds.
SMALL_BODY_BYTES: Final = 65_536
# All text beside inline data: two million tokens of six bytes. No model reads more.
MAX_TEXT_BYTES: Final = 12 * 2**20
# Commas, colons, points and brackets outside strings: three thousand tools of twenty parameters.
MAX_MARKS: Final = 1_000_000
# The same between two ends of objects, where all but commas count four times: 64,000 members,
# 64,000 lists, or the 300,000 token ids that a request for embeddings may have.
MAX_MARKS_TOGETHER: Final = 320_000
MAX_DEPTH: Final = 128
# Parsing a number takes time that grows with the square of its digits.
MAX_DIGITS: Final = 100

_DATA_PREFIX: Final = b'"data:'
_MIN_INLINE_BYTES: Final = 4_096
_END_OF_NAME: Final = re.compile(rb'"[ \t\n\r]*+:')
_SLICE_BYTES: Final = 2**20
# Longer than what a message may repeat of a value, so that none shows the secret behind it.
_STAND_IN_PREFIX_BYTES: Final = MAX_ECHO_CHARS + 28
# The characters of a data URL: its media type and base64.
_DATA_URL: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-;:,."
_MARKS: Final = b",[{}:."
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_BRACKETS_AT_ONCE: Final = 65_536
_NO_MARKS: Final = bytes(set(range(256)) - set(_MARKS))
_NO_BRACKETS: Final = bytes(set(range(256)) - set(_STEPS))
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"0" * 9)
# A client that could write a stand-in could claim any length for it.
_STAND_IN_SECRET: Final = secrets.token_hex(16).encode()


@dataclass(frozen=True, slots=True)
class Hollow:
    """A body without the content of its long data URLs, each replaced by a short stand-in.

    `cuts` has the offset behind each stand-in and the bytes that are missing there, in ascending
    order. `inline_chars` has the length of the URL that a stand-in stands for.
    """

    text: bytes = field(repr=False)
    cuts: tuple[tuple[int, int], ...] = ()
    inline_chars: dict[str, int] = field(default_factory=dict, repr=False)


def hollow_out(raw: bytes) -> Hollow:
    """Take the content of long data URLs out of a body, whose parse would copy it for nothing.

    Only content that every reader takes for the same plain characters is taken out. What stands
    between two quotation marks is never structure, so nothing that counts is hidden.
    """
    kept: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    inline_chars: dict[str, int] = {}
    kept_to = kept_bytes = at = 0
    while (start := _find_sliced(raw, at)) >= 0:
        end = raw.find(b'"', start + 1)
        if end < 0:
            break
        at = end
        # Names stay as they are, because no two of one object may be the same.
        if end - start < _MIN_INLINE_BYTES or _END_OF_NAME.match(raw, end):
            continue
        # PHP writes each slash as `\/`.
        content = raw[start + 1 : end].replace(b"\\/", b"/")
        if content.translate(None, _DATA_URL):
            continue
        stand_in = b"%s#%s-%d" % (
            content[:_STAND_IN_PREFIX_BYTES],
            _STAND_IN_SECRET,
            len(cuts),
        )
        inline_chars[stand_in.decode()] = len(content)
        before = raw[kept_to : start + 1]
        kept += (before, stand_in)
        kept_bytes += len(before) + len(stand_in)
        cuts.append((kept_bytes, end - start - 1 - len(stand_in)))
        kept_to = end
    if not cuts:
        return Hollow(raw)
    kept.append(raw[kept_to:])
    return Hollow(b"".join(kept), tuple(cuts), inline_chars)


def refuse_heavy(text: bytes) -> Deny | None:
    """Refuse a body whose parse would take too long; None where it will not."""
    if len(text) > MAX_TEXT_BYTES:
        limit = f"{MAX_TEXT_BYTES // 2**20} MiB"
        return _too_large(f"The body has more than {limit} of text beside inline images.")
    is_deep = text.count(b"[") + text.count(b"{") > MAX_DEPTH
    is_large = len(text) > SMALL_BODY_BYTES
    if not is_deep and not is_large:
        return None
    if (
        # Nothing would be too heavy even if strings were structure.
        not is_deep
        and 4 * len(text.translate(None, _NO_MARKS)) <= MAX_MARKS_TOGETHER
        and not _has_long_number(text)
    ):
        return None
    outside = _outside_strings(text)
    if is_deep and _is_deeper(outside.translate(None, _NO_BRACKETS), MAX_DEPTH):
        return deny(Reason.INVALID_JSON, f"The body is nested more than {MAX_DEPTH} levels deep.")
    if not is_large:
        return None
    if _has_long_number(outside):
        return deny(Reason.INVALID_JSON, f"A number in the body has more than {MAX_DIGITS} digits.")
    marks = outside.translate(None, _NO_MARKS)
    if len(marks) > MAX_MARKS:
        return _too_large(f"The body has more than {MAX_MARKS} members and values.")
    if len(marks) * 4 > MAX_MARKS_TOGETHER and any(
        4 * len(run) - 3 * run.count(b",") > MAX_MARKS_TOGETHER for run in marks.split(b"}")
    ):
        return _too_large("One object or list of the body has too many members or values.")
    return None


def _find_sliced(raw: bytes, at: int) -> int:
    """Find the next data URL. One call for the whole body would keep all other threads."""
    while at < len(raw):
        found = raw.find(_DATA_PREFIX, at, at + _SLICE_BYTES + len(_DATA_PREFIX) - 1)
        if found >= 0:
            return found
        at += _SLICE_BYTES
    return -1


def _has_long_number(text: bytes) -> bool:
    return b"0" * (MAX_DIGITS + 1) in text.translate(_DIGITS_AS_ZEROS)


def _outside_strings(text: bytes) -> bytes:
    """Return what stands outside strings.

    Where the body is no valid JSON this is right up to its first fault, and no parser reads on.
    """
    if b"\\" in text:
        # Escapes become plain characters: afterwards every quotation mark begins or ends a string.
        text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    outside, is_inside = [], 0
    for at in range(0, len(text), _SLICE_BYTES):
        pieces = text[at : at + _SLICE_BYTES].split(b'"')
        outside.append(b"".join(pieces[is_inside::2]))
        is_inside = (is_inside + len(pieces) - 1) % 2
    return b"".join(outside)


def _is_deeper(brackets: bytes, levels: int) -> bool:
    """Return whether brackets are nested deeper than this, in slices for the sake of other threads.

    Brackets that do not match are the parser's to refuse.
    """
    level = 0
    for at in range(0, len(brackets), _BRACKETS_AT_ONCE):
        steps = map(_STEPS.__getitem__, brackets[at : at + _BRACKETS_AT_ONCE])
        reached = list(accumulate(steps, initial=level))
        if max(reached) > levels:
            return True
        level = reached[-1]
    return False


def _too_large(message: str) -> Deny:
    return deny(Reason.REQUEST_TOO_LARGE, message)
