"""Reading a compact JWT strictly, before any cryptography. Pure.

A text that two programs could read differently is refused: duplicated members, base64 that is not
canonical, encodings other than UTF-8, header members that ask for more than a signature check. The
length is bounded, so that a refusal costs little.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from meter.errors import JwtRefused

MAX_JWT_CHARS: Final = 8_192
MAX_KID_CHARS: Final = 256
MAX_DEPTH: Final = 8
# The members that issuers send. Members that bring or fetch a key (jku, x5u, x5c, jwk), change the
# signed text (b64, crit) or hide it (zip, enc, cty) are refused, and so is every unknown member.
HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
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
    header = _read_header(read_object(_decode(form[1], "header"), "header"))
    return UnverifiedJwt(header, read_object(_decode(form[2], "payload"), "payload"), text)


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
    foreign = sorted(members.keys() - HEADER_MEMBERS)
    if foreign:
        raise JwtRefused(f"its header has the member {foreign[0][:64]!a}")
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
