"""POST /explain: the request to explain, as JSON."""

import base64
import binascii
from typing import Any, Final

from authz.request import HEADERS_USED, AuthRequest

_TEXTS: Final = ("method", "path", "peer", "certificate")
_MEMBERS: Final = frozenset({*_TEXTS, "headers", "body_base64", "extensions"})
_DEFAULTS: Final = {"method": "POST", "path": "/v1/chat/completions", "peer": "127.0.0.1"}


class NotARequest(ValueError):
    """The document does not describe a request; the message says why, without quoting it."""


def read_request(document: object) -> AuthRequest:
    """Return the request that a JSON document describes, as Envoy would send it to a check.

    Raises NotARequest.
    """
    if not isinstance(document, dict):
        raise NotARequest("a JSON object is needed")
    if unknown := document.keys() - _MEMBERS:
        raise NotARequest(f"unknown members: {', '.join(sorted(map(str, unknown)))}")
    texts = {name: _text(document.get(name, _DEFAULTS.get(name, "")), name) for name in _TEXTS}
    extensions = document.get("extensions", {})
    if not isinstance(extensions, dict) or not all(
        isinstance(one, str) for one in extensions.values()
    ):
        raise NotARequest("extensions must be an object of texts")
    return AuthRequest(
        method=texts["method"],
        path=texts["path"],
        headers=_headers(document.get("headers", [])),
        body=_body(document.get("body_base64", "")),
        peer=texts["peer"],
        certificate=texts["certificate"],
        extensions=extensions,
    )


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise NotARequest(f"{name} must be a text")
    return value


def _headers(pairs: Any) -> tuple[tuple[str, str], ...]:
    """Return headers as Envoy sends them: names in lower case, values decoded as latin-1."""
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)
        for pair in pairs
    ):
        raise NotARequest("headers must be a list of [name, value]")
    named = ((name.lower(), value.encode("utf-8", "replace")) for name, value in pairs)
    return tuple((name, value.decode("latin-1")) for name, value in named if name in HEADERS_USED)


def _body(text: Any) -> bytes:
    try:
        return base64.b64decode(_text(text, "body_base64"), validate=True)
    except (binascii.Error, ValueError):
        raise NotARequest("body_base64 must be base64") from None
