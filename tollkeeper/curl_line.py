"""Reads a line of curl as the request that curl would send. Runs and sends nothing."""

import base64
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tollkeeper.errors import CommandError

MAX_LINE_CHARS: Final = 32 * 2**20
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"

_WITH_VALUE: Final[Mapping[str, str]] = {
    "-X": "request", "-H": "header", "-d": "data", "-u": "user", "-b": "cookie",
    "-A": "user-agent", "-e": "referer", "-o": "output", "-m": "max-time", "-w": "write-out",
    "-x": "proxy",
}  # fmt: skip
_WITHOUT_VALUE: Final[Mapping[str, str]] = {
    "-N": "no-buffer", "-s": "silent", "-S": "show-error", "-i": "include", "-k": "insecure",
    "-v": "verbose", "-L": "location", "-f": "fail", "-g": "globoff", "-I": "head", "-G": "get",
}  # fmt: skip
_LONG_WITH_VALUE: Final = frozenset(
    {
        *_WITH_VALUE.values(),
        *("data-raw", "data-ascii", "data-binary", "json", "url", "oauth2-bearer"),
        *("connect-timeout", "retry", "unix-socket", "cacert", "resolve"),
    }
)
_LONG_WITHOUT_VALUE: Final = frozenset(
    {*_WITHOUT_VALUE.values(), "compressed", "no-progress-meter", "http1.1", "http2", "http3"}
)
_SHELL_PIECE: Final = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.|[^'\"\\]+|.", re.DOTALL)
_VARIABLE: Final = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*))")


@dataclass(slots=True)
class CurlRequest:
    """The request that curl would send: `headers` in order, `body` None without one."""

    method: str
    path: str
    headers: list[tuple[str, str]] = field(repr=False)
    body: bytes | None = field(repr=False)


@dataclass(slots=True)
class _Given:
    """The options of a line, as they add up."""

    urls: list[str] = field(default_factory=list)
    method: str | None = None
    headers: list[str] = field(default_factory=list)
    body: bytes | None = None
    is_json: bool = False
    is_get: bool = False
    is_head: bool = False
    user: str | None = None
    bearer: str | None = None


def read_curl_line(text: str) -> CurlRequest:
    """Return the request of a line, split into words as a shell does; `curl` may stand first.

    Variables come from our environment, and a backslash at its end continues a line. Raises
    CommandError.
    """
    if len(text) > MAX_LINE_CHARS:
        raise CommandError(f"The line is longer than {MAX_LINE_CHARS} characters.")
    try:
        # Put variables in, except between single quotes; join lines.
        words = shlex.split("".join(_expand_piece(piece) for piece in _SHELL_PIECE.findall(text)))
    except ValueError as error:
        raise CommandError(f"A shell could not read this line: {error}.") from None
    return read_curl_words(words)


def read_curl_words(words: Sequence[str]) -> CurlRequest:
    """Return the request of words that a shell has already split. Raises CommandError."""
    given = _Given()
    left = list(words[1:] if words and Path(words[0]).name == "curl" else words)
    while left:
        word = left.pop(0)
        if word.startswith("--"):
            _read_long(given, word[2:], left)
        elif word.startswith("-") and len(word) > 1:
            _read_short(given, word, left)
        else:
            given.urls.append(word)
    if len(given.urls) != 1:
        raise CommandError(f"The line must have one URL, but has {len(given.urls)}.")
    url = given.urls[0] if "://" in given.urls[0] else f"http://{given.urls[0]}"
    parts = urlsplit(url)
    path, body = (parts.path or "/") + (f"?{parts.query}" if "?" in url else ""), given.body
    if given.is_get and body is not None:
        path, body = f"{path}{'&' if '?' in path else '?'}{body.decode('latin-1')}", None
    usual = "HEAD" if given.is_head else "GET" if body is None else "POST"
    said: set[str] = set()
    headers: list[tuple[str, str]] = []
    for header in given.headers:
        # `Name;` has an empty value; for `Name:` curl leaves out a header of its own.
        name, colon, value = header.partition(":")
        is_empty = not colon and header.rstrip().endswith(";")
        name, value = name.strip() if colon else name.rstrip("; "), value.strip()
        said.add(name.lower())
        if value or is_empty:
            headers.append((name, value))
    # curl adds these two where the line does not name them.
    if body is not None and "content-type" not in said:
        headers.append(("content-type", _JSON if given.is_json else _FORM))
    if "authorization" not in said and (given.bearer or given.user):
        basic = base64.b64encode((given.user or "").encode()).decode()
        scheme = f"Bearer {given.bearer}" if given.bearer else f"Basic {basic}"
        headers.append(("authorization", scheme))
    return CurlRequest(given.method or usual, path, headers, body)


def _expand_piece(piece: str) -> str:
    if piece == "\\\n":
        return ""
    if piece.startswith('"') and len(piece) > 1:
        return _VARIABLE.sub(lambda found: re.sub(r'(["\\])', r"\\\1", _value(found)), piece)
    if piece.startswith(("'", "\\")):
        return piece
    if piece.endswith("$"):
        raise CommandError("Text in $'...' is not supported here; write it in '...'.")
    return _VARIABLE.sub(lambda found: shlex.quote(_value(found)), piece)


def _value(found: "re.Match[str]") -> str:
    """Return a variable's value; `${NAME%/v1}`, which our documents use, removes an ending."""
    name, _, ending = (found["braced"] or found["plain"] or "").partition("%")
    value = os.environ.get(name)
    if value is None:
        raise CommandError(f"The line names the variable {name!a}, which is not set here.")
    return value.removesuffix(ending)


def _read_long(given: _Given, word: str, left: list[str]) -> None:
    if word in _LONG_WITH_VALUE:
        if not left:
            raise CommandError(f"--{word} needs a value, but ends the line.")
        _apply(given, word, left.pop(0))
    elif word in _LONG_WITHOUT_VALUE:
        _apply(given, word, "")
    else:
        raise CommandError(f"curl's option --{word} is not supported here; leave it out.")


def _read_short(given: _Given, word: str, left: list[str]) -> None:
    """Read a group of letters such as `-sSd`; a value may follow its letter directly."""
    for at, letter in enumerate(word[1:], 1):
        option = f"-{letter}"
        if option in _WITHOUT_VALUE:
            _apply(given, _WITHOUT_VALUE[option], "")
            continue
        if option not in _WITH_VALUE:
            raise CommandError(f"curl's option {option} is not supported here; leave it out.")
        rest = word[at + 1 :]
        if not rest and not left:
            raise CommandError(f"{option} needs a value, but ends the line.")
        _apply(given, _WITH_VALUE[option], rest or left.pop(0))
        return


def _apply(given: _Given, name: str, value: str) -> None:
    act = _ACTIONS.get(name)
    if act is not None:
        act(given, value)


def _add_data(given: _Given, data: bytes) -> None:
    given.body = data if given.body is None else given.body + b"&" + data


def _add_json(given: _Given, value: str) -> None:
    given.body = (given.body or b"") + _read_data(value, keeps_lines=True)
    given.is_json = True


def _read_data(value: str, keeps_lines: bool) -> bytes:
    """Return the text, or for `@name` the content of that file, without line ends as in curl."""
    if not value.startswith("@"):
        return value.encode("utf-8", "surrogateescape")
    if value == "@-":
        raise CommandError("The body cannot come from standard input here; name a file.")
    try:
        content = Path(value[1:]).read_bytes()
    except OSError as error:
        raise CommandError(f"{value[1:]} cannot be read: {error.strerror}.") from None
    return content if keeps_lines else re.sub(rb"[\r\n\0]", b"", content)


def _set(name: str, constant: object = None) -> Callable[[_Given, str], None]:
    return lambda given, value: setattr(given, name, value if constant is None else constant)


_ACTIONS: Final[Mapping[str, Callable[[_Given, str], None]]] = {
    "request": _set("method"),
    "get": _set("is_get", True),
    "head": _set("is_head", True),
    "user": _set("user"),
    "oauth2-bearer": _set("bearer"),
    "url": lambda given, value: given.urls.append(value),
    "header": lambda given, value: given.headers.append(value),
    "data": lambda given, value: _add_data(given, _read_data(value, keeps_lines=False)),
    "data-ascii": lambda given, value: _add_data(given, _read_data(value, keeps_lines=False)),
    "data-binary": lambda given, value: _add_data(given, _read_data(value, keeps_lines=True)),
    "data-raw": lambda given, value: _add_data(given, value.encode("utf-8", "surrogateescape")),
    "json": _add_json,
}
