"""Reading a compact JWT strictly, before any cryptography. Pure.

A text that two programs could read differently is refused: duplicated members, base64 that is not
canonical, encodings other than UTF-8, header members that ask for more than a signature check.
Length, values and depth are bounded, so that a refusal costs little.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from meter.errors import JwtRefused

# What Envoy lets through beside other headers, of which all together may have 60 KiB. Keycloak's
# have as many roles and groups as a user has; Entra stops at 200 groups.
MAX_JWT_CHARS: Final = 49_152
# Commas and opening brackets: a parser's cost depends on values more than on length.
MAX_SEPARATORS: Final = 4_096
MAX_KID_CHARS: Final = 256
MAX_DEPTH: Final = 8
# These bring or fetch a key, change the signed text or hide it, and what ignores them would read
# another JWT than its issuer wrote. Other members that are not known are ignored (RFC 7515, 4).
REFUSED_HEADER_MEMBERS: Final = frozenset(
    {"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc", "cty", "epk"}
)
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_KID: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_KID_CHARS}}}")
_TYPE: Final = re.compile(r"[A-Za-z0-9.+/_-]{1,64}")


@dataclass(frozen=True, slots=True)
class JwtHeader:
    """The header of a JWT; `typ` is in small letters and without `application/`."""

    alg: str
    kid: str | None
    typ: str | None


@dataclass(frozen=True, slots=True)
class UnverifiedJwt:
    """A well-formed JWT that is not verified yet: every claim may be forged."""

    header: JwtHeader
    claims: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)


def looks_like_jwt(text: str) -> bool:
    """Return whether this is a JWT rather than an API key: keys never contain a dot."""
    return text.count(".") == 2


def read_jwt(text: str) -> UnverifiedJwt:
    """Read the parts of a compact JWT. Raises JwtRefused with the reason."""
    if len(text) > MAX_JWT_CHARS:
        raise JwtRefused(f"it is longer than {MAX_JWT_CHARS} characters")
    form = _COMPACT.fullmatch(text)
    if form is None:
        raise JwtRefused("it is not three base64url parts with dots between them")
    _decode(form[3], "signature")
    first, second = _decode(form[1], "header"), _decode(form[2], "payload")
    if sum(part.count(mark) for part in (first, second) for mark in (b",", b"[", b"{")) > (
        MAX_SEPARATORS
    ):
        raise JwtRefused(f"it has more than {MAX_SEPARATORS} commas and opening brackets")
    header = _read_header(read_object(first, "header"))
    return UnverifiedJwt(header, read_object(second, "payload"), text)


def read_object(octets: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object in UTF-8 of bounded depth, in which no member occurs twice.

    Raises JwtRefused; `what` names the object in its message.
    """
    try:
        members = json.loads(
            octets.decode(), object_pairs_hook=_unique_members, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise JwtRefused(f"its {what} is not JSON in UTF-8 that names each member once") from None
    if not isinstance(members, dict):
        raise JwtRefused(f"its {what} is not a JSON object")
    if _is_deeper(members, MAX_DEPTH):
        raise JwtRefused(f"its {what} is nested more than {MAX_DEPTH} levels deep")
    return members


def _read_header(members: Mapping[str, Any]) -> JwtHeader:
    refused = sorted(members.keys() & REFUSED_HEADER_MEMBERS)
    if refused:
        raise JwtRefused(f"its header has the member {refused[0]}")
    alg, kid, typ = members.get("alg"), members.get("kid"), members.get("typ")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise JwtRefused("its header names no algorithm that is accepted")
    if kid is not None and not (isinstance(kid, str) and _KID.fullmatch(kid)):
        raise JwtRefused("its kid is not a short printable text")
    if typ is not None and not (isinstance(typ, str) and _TYPE.fullmatch(typ)):
        raise JwtRefused("its typ is not a media type")
    return JwtHeader(alg, kid, None if typ is None else typ.lower().removeprefix("application/"))


def _decode(segment: str, what: str) -> bytes:
    padding = "=" * (-len(segment) % 4)
    try:
        octets = base64.urlsafe_b64decode(segment + padding)
    except binascii.Error:
        raise JwtRefused(f"its {what} is not base64url") from None
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != segment.encode():
        raise JwtRefused(f"its {what} is not canonical base64url")
    return octets


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is named twice")
    return members


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return any(_is_deeper(member, levels - 1) for member in inner)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
