"""Strict readers of claims: the times, the kind, the subject and the rights of a JWT. Pure."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from meter.errors import JwtRefused
from meter.jwts.terms import LEEWAY_S, IssuerTerms, is_plain
from meter.scopes import Scope

MAX_LIFETIME_S: Final = 2_592_000
MAX_SUBJECT_CHARS: Final = 512
MAX_NAME_CHARS: Final = 200
# The end of the year 9999, which is the last that `datetime` has.
MAX_TIME_S: Final = 253_402_214_400
# Only ID tokens have these claims (OpenID Connect Core).
_ID_TOKEN_CLAIMS: Final = ("at_hash", "c_hash", "s_hash")
# Claims that hold a list of words in one text (RFC 8693, Entra); other texts are one value.
_WORD_CLAIMS: Final = ("scope", "scp")
_LEEWAY: Final = timedelta(seconds=LEEWAY_S)


def check_times(claims: Mapping[str, Any], now: datetime) -> datetime:
    """Check the times and return the end of acceptance: `exp` plus the leeway. Raises JwtRefused.

    Times must be whole numbers: two programs may round a fraction differently.
    """
    issued_at = read_time(claims, "iat")
    expires_at = read_time(claims, "exp")
    starts_at = read_time(claims, "nbf") if "nbf" in claims else issued_at
    if expires_at + _LEEWAY <= now:
        raise JwtRefused(f"it expired at {expires_at.isoformat()}")
    if max(issued_at, starts_at) - _LEEWAY > now:
        raise JwtRefused(f"it is not valid before {max(issued_at, starts_at).isoformat()}")
    if not timedelta(0) < expires_at - issued_at <= timedelta(seconds=MAX_LIFETIME_S):
        raise JwtRefused(f"its lifetime, exp less iat, is not between 1 and {MAX_LIFETIME_S} s")
    return expires_at + _LEEWAY


def read_time(claims: Mapping[str, Any], name: str) -> datetime:
    """Read a claim in whole seconds since 1970. Raises JwtRefused."""
    seconds = claims.get(name)
    # Older versions of Keycloak write a start of 0, "always".
    if type(seconds) is not int or not 0 <= seconds <= MAX_TIME_S:
        raise JwtRefused(f"its {name} is not a time in whole seconds")
    return datetime.fromtimestamp(seconds, UTC)


def check_kind(claims: Mapping[str, Any], may_be_id_token: bool) -> None:
    """Check that the JWT is a bearer access token. Raises JwtRefused.

    An ID token tells a client who signed in; it grants no access. It is recognised by the hashes
    that only ID tokens have, by Keycloak's claim `typ`, or by `nonce` where `typ` is missing. A
    JWT that is bound to a key (`cnf`) is refused, because a thief without that key could use it.
    """
    if "cnf" in claims:
        raise JwtRefused("it is bound to a key of its client (cnf), which cannot be checked here")
    if "events" in claims:
        raise JwtRefused("it reports an event (events), and is not a credential")
    kind = claims.get("typ", "Bearer" if "nonce" not in claims else "ID")
    if kind not in ("Bearer", "ID"):
        raise JwtRefused("its claim typ is not Bearer")
    is_id_token = kind == "ID" or any(name in claims for name in _ID_TOKEN_CLAIMS)
    if is_id_token and not may_be_id_token:
        raise JwtRefused("it is an ID token, not an access token")


def check_audience(claims: Mapping[str, Any], terms: IssuerTerms) -> None:
    """Check that the claim of the terms names one of their audiences. Raises JwtRefused."""
    if terms.audiences.isdisjoint(_texts(claims, terms.audience_claim)):
        raise JwtRefused(f"its {terms.audience_claim} is none of the audiences of the terms")


def check_required(claims: Mapping[str, Any], terms: IssuerTerms) -> None:
    """Check that the JWT has the claims that the terms require. Raises JwtRefused."""
    for path, values in terms.required_claims.items():
        is_there = find_claim(claims, path) is not None
        if not is_there or (values and values.isdisjoint(_texts(claims, path))):
            raise JwtRefused(f"its {path} is not what the issuer's terms require")


def read_subject(claims: Mapping[str, Any], path: str) -> str:
    """Read a claim that names a subject. Raises JwtRefused."""
    subject = find_claim(claims, path)
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= MAX_SUBJECT_CHARS
        or not is_plain(subject)
        or subject != subject.strip()
    ):
        raise JwtRefused(f"its {path} is not a name of 1 to {MAX_SUBJECT_CHARS} characters")
    return subject


def read_scopes(claims: Mapping[str, Any], terms: IssuerTerms) -> frozenset[Scope]:
    """Return the scopes of the JWT: the defaults of its issuer, and those of mapped claims."""
    scopes = set(terms.default_scopes)
    for path, mapped in terms.scopes.items():
        for text in _texts(claims, path):
            scopes |= mapped.get(text, frozenset())
    return frozenset(scopes)


def read_plan(claims: Mapping[str, Any], terms: IssuerTerms) -> str | None:
    """Return the plan that the claims ask for; None where the issuer does not set plans."""
    if terms.plan_claim is None:
        return None
    values = set(_texts(claims, terms.plan_claim))
    return next((plan for value, plan in terms.plans if value in values), terms.default_plan)


def read_name(claims: Mapping[str, Any]) -> str | None:
    """Return the name of the subject, for display only; None without a usable one."""
    for claim in ("name", "preferred_username"):
        name = claims.get(claim)
        if isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS and is_plain(name):
            return name
    return None


def read_email(claims: Mapping[str, Any]) -> str | None:
    """Return the verified email address, for display only; None without a usable one."""
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str):
        return None
    is_usable = 3 <= len(email) <= MAX_NAME_CHARS and is_plain(email) and " " not in email
    return email if is_usable and email.count("@") == 1 else None


def find_claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim at a path, whose dots lead into objects; None where there is none.

    Names may contain dots themselves (`https://example.com/roles`, clients of Keycloak). So the
    whole rest of the path is tried as a name first, then its parts.
    """
    if path in claims:
        return claims[path]
    for at, char in enumerate(path):
        outer = claims.get(path[:at]) if char == "." else None
        if isinstance(outer, dict):
            return find_claim(outer, path[at + 1 :])
    return None


def _texts(claims: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the values of a claim: its text, its words (`scope`, `scp`), or the texts of a list."""
    claim = find_claim(claims, path)
    if isinstance(claim, str):
        yield from claim.split(" ") if path in _WORD_CLAIMS else (claim,)
    elif isinstance(claim, list):
        yield from (value for value in claim if isinstance(value, str))
