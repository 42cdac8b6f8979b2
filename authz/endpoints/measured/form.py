"""Bodies of `multipart/form-data`, read as strictly as any provider might read them (R7).

A form that two parsers could read differently is refused: the boundary anywhere but between two
parts, text around them, names given twice, headers of parts beside the two that forms need.
"""

import re
from dataclasses import field
from typing import Final

from authz.decision import Reason, Refused, deny, echo
from authz.endpoints.body import Body
from authz.request import AuthRequest
from meter.values import light_value

FILE_MEMBER: Final = "file"
MODEL_MEMBER: Final = "model"
MAX_PARTS: Final = 32
MAX_HEADER_BYTES: Final = 1_024
MAX_VALUE_BYTES: Final = 65_536

_TYPE: Final = re.compile(
    r"multipart/form-data\s*;\s*boundary="
    r"""(?:"([0-9A-Za-z'()+_,./:=?-]{1,70})"|([0-9A-Za-z'+_.-]{1,70}))""",
    re.ASCII | re.IGNORECASE,
)
_DISPOSITION: Final = re.compile(
    r'form-data\s*;\s*name="([^"\\\r\n]{1,100})"(?:\s*;\s*filename="([^"\\\r\n]{0,500})")?',
    re.IGNORECASE,
)
_LENGTH_HEADER: Final = "content-length"


@light_value
class SoundForm(Body):
    """A parsed form. `members` has its texts by name; of a list, `[]` is part of the name.

    `file` is the one file that it sends, `file_name` and `file_type` are what the form says of it.
    `model_at` is the place of the model's name: offset and length in bytes.
    """

    file: bytes = field(default=b"", repr=False)
    file_name: str = ""
    file_type: str = ""
    model_at: tuple[int, int] = (0, 0)


def read_form(request: AuthRequest, max_bytes: int) -> SoundForm:
    """Return the form that a request sends. Raises Refused."""
    raw = request.body
    if len(raw) > max_bytes:
        message = f"The body is larger than {max_bytes // 2**20} MiB."
        raise Refused(deny(Reason.REQUEST_TOO_LARGE, message))
    types = request.values("content-type")
    told = _TYPE.fullmatch(types[0].strip()) if len(types) == 1 else None
    if told is None:
        message = "A form must be sent as 'content-type: multipart/form-data; boundary=...'."
        raise Refused(deny(Reason.UNSUPPORTED_CONTENT_TYPE, message))
    if any(one.strip().lower() != "identity" for one in request.values("content-encoding")):
        raise Refused(deny(Reason.UNSUPPORTED_CONTENT_ENCODING))
    mark = b"--" + (told[1] or told[2]).encode()
    if not raw.startswith(mark + b"\r\n"):
        raise _malformed("it must begin with its boundary")
    end = raw.rfind(b"\r\n" + mark + b"--")
    if end < 0 or raw[end + len(mark) + 4 :] not in (b"", b"\r\n"):
        raise _malformed("it must end with its boundary and '--'")
    between = b"\r\n" + mark + b"\r\n"
    parts = raw[len(mark) + 2 : end].split(between, MAX_PARTS)
    if len(parts) > MAX_PARTS:
        raise Refused(deny(Reason.REQUEST_TOO_LARGE, f"The form has more than {MAX_PARTS} parts."))
    # A parser that takes the boundary for one anywhere else would find other parts.
    if raw.count(mark) != len(parts) + 1:
        raise _malformed("its boundary stands within a part")
    members: dict[str, object] = {}
    file, file_name, file_type = b"", "", ""
    model_at = (0, 0)
    seen: set[str] = set()
    at = len(mark) + 2
    for part in parts:
        name, sent_name, kind, told_bytes, start = _read_head(part)
        content, shown = part[start:], echo(name)
        if told_bytes is not None and told_bytes != str(len(content)):
            raise _malformed(f"the 'content-length' of '{shown}' is not the length of its content")
        if name in seen and not name.endswith("[]"):
            raise Refused(deny(Reason.DUPLICATE_KEY, f"The form has '{shown}' twice.", shown))
        seen.add(name)
        if (name == FILE_MEMBER) != (sent_name is not None):
            raise _malformed(f"'{FILE_MEMBER}' must be a file with a name, and nothing else one")
        if sent_name is not None:
            file, file_name, file_type = content, sent_name, kind
        elif len(content) > MAX_VALUE_BYTES:
            message = f"'{shown}' is larger than {MAX_VALUE_BYTES // 1_024} KiB."
            raise Refused(deny(Reason.REQUEST_TOO_LARGE, message, shown))
        else:
            try:
                members[name] = content.decode("utf-8")
            except UnicodeDecodeError:
                raise _malformed(f"'{shown}' is not valid UTF-8") from None
        if name == MODEL_MEMBER:
            model_at = at + start, len(content)
        at += len(part) + len(between)
    return SoundForm(
        "",
        len(raw),
        members,
        file=file,
        file_name=file_name,
        file_type=file_type,
        model_at=model_at,
    )


def _read_head(part: bytes) -> tuple[str, str | None, str, str | None, int]:
    """Return name, file name, content type and told length of a part, and where it starts."""
    end = part.find(b"\r\n\r\n", 0, MAX_HEADER_BYTES)
    if end < 0:
        raise _malformed(f"a part has no headers, or more than {MAX_HEADER_BYTES} bytes of them")
    headers: dict[str, str] = {}
    for line in part[:end].decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name in headers or "\n" in line or "\r" in line:
            raise _malformed("the headers of a part cannot be read")
        if name not in ("content-disposition", "content-type", _LENGTH_HEADER):
            raise _malformed(f"a part has the header '{echo(name)}', which is not known here")
        headers[name] = value.strip()
    told = _DISPOSITION.fullmatch(headers.get("content-disposition", ""))
    if told is None:
        raise _malformed("a part must have 'content-disposition: form-data; name=\"...\"'")
    kind, told_bytes = headers.get("content-type", ""), headers.get(_LENGTH_HEADER)
    return told[1], told[2], kind, told_bytes, end + 4


def _malformed(why: str) -> Refused:
    return Refused(deny(Reason.INVALID_VALUE, f"The form cannot be read: {why}."))
