"""The terms of an issuer: the requirements on its JWTs, and the meaning of their claims. Pure.

The terms are stored as JSON in `issuers.terms`. docs/jwts.md describes the members, with an example
for each common issuer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from meter.errors import InvalidRequest
from meter.jwts.addresses import read_https_url
from meter.scopes import ADMIN_SCOPES, Scope, scopes_of

LEEWAY_S: Final = 30
DEFAULT_KEY_AGE_S: Final = 86_400
MAX_KEY_AGE_S: Final = 604_800
MAX_TEXT_CHARS: Final = 500
MAX_LISTED: Final = 200
DEFAULT_TYPES: Final = frozenset({"jwt", "at+jwt"})
AUDIENCE_CLAIM: Final = "aud"
_PLAN_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Family(StrEnum):
    """A family of algorithms that use the same kind of key in the same way."""

    RS = "RS"
    PS = "PS"
    ES = "ES"
    EDDSA = "EdDSA"


FAMILY_ALGORITHMS: Final[Mapping[Family, frozenset[str]]] = MappingProxyType(
    {
        Family.RS: frozenset({"RS256", "RS384", "RS512"}),
        Family.PS: frozenset({"PS256", "PS384", "PS512"}),
        Family.ES: frozenset({"ES256", "ES384", "ES512"}),
        Family.EDDSA: frozenset({"EdDSA"}),
    }
)


@dataclass(frozen=True, slots=True)
class IssuerTerms:
    """The terms of one issuer.

    `audiences`: one of them must be in `audience_claim`, which is another claim than `aud` only for
    issuers whose access tokens have none (Cognito). `algorithms`: the one family. `types`: values
    of the header's `typ`, in small letters; `may_omit_type` lets it be missing. `jwks_url`: where
    the keys are, None to follow the discovery document. `max_key_age_s`: the time that the last key
    set stays usable when the issuer does not answer. `required_claims`: claims that every JWT must
    have, with one of the values if any are listed. `may_be_id_token`: accept ID tokens, for issuers
    that have no other JWTs.

    `account_claim`: the claim that, together with the issuer, determines the account. `scopes`:
    the scopes that each value of each claim grants; only here can JWTs get admin scopes.
    `default_scopes`: the scopes of every JWT of the issuer, never admin scopes. `plan_claim` and
    `plans`: the first value in `plans` that the claim has sets the plan. `default_plan`: the plan
    where none of them is found.
    """

    audiences: frozenset[str]
    audience_claim: str = AUDIENCE_CLAIM
    algorithms: Family = Family.RS
    types: frozenset[str] = DEFAULT_TYPES
    may_omit_type: bool = False
    jwks_url: str | None = None
    max_key_age_s: int = DEFAULT_KEY_AGE_S
    required_claims: Mapping[str, frozenset[str]] = field(default_factory=dict)
    may_be_id_token: bool = False
    account_claim: str = "sub"
    scopes: Mapping[str, Mapping[str, frozenset[Scope]]] = field(default_factory=dict)
    default_scopes: frozenset[Scope] = frozenset()
    plan_claim: str | None = None
    plans: tuple[tuple[str, str], ...] = ()
    default_plan: str | None = None
    may_create_accounts: bool = False

    def __post_init__(self) -> None:
        """Raise InvalidRequest for terms that would accept too much."""
        if not self.audiences:
            raise InvalidRequest("audiences must name at least one audience")
        if self.default_scopes & ADMIN_SCOPES:
            raise InvalidRequest(
                "default_scopes must not hold admin scopes; map a claim value in scopes"
            )
        if not 0 < self.max_key_age_s <= MAX_KEY_AGE_S:
            raise InvalidRequest(f"max_key_age_s must be between 1 and {MAX_KEY_AGE_S}")
        if not self.types and not self.may_omit_type:
            raise InvalidRequest("types must name at least one type")
        if self.plans and self.plan_claim is None:
            raise InvalidRequest("plans needs plan_claim")

    def to_json(self) -> dict[str, Any]:
        """Return the terms as they are stored in `issuers.terms`."""
        return {
            "audiences": sorted(self.audiences),
            "audience_claim": self.audience_claim,
            "algorithms": self.algorithms.value,
            "types": sorted(self.types),
            "may_omit_type": self.may_omit_type,
            "jwks_url": self.jwks_url,
            "max_key_age_s": self.max_key_age_s,
            "required_claims": {c: sorted(v) for c, v in self.required_claims.items()},
            "may_be_id_token": self.may_be_id_token,
            "account_claim": self.account_claim,
            "scopes": {
                claim: {value: sorted(scopes) for value, scopes in values.items()}
                for claim, values in self.scopes.items()
            },
            "default_scopes": sorted(self.default_scopes),
            "plan_claim": self.plan_claim,
            "plans": [{"value": value, "plan": plan} for value, plan in self.plans],
            "default_plan": self.default_plan,
            "may_create_accounts": self.may_create_accounts,
        }

    @classmethod
    def from_json(cls, members: object) -> "IssuerTerms":
        """Read terms; missing members get their defaults. Raises InvalidRequest."""
        if not isinstance(members, dict):
            raise InvalidRequest("terms must be a JSON object")
        unknown = sorted(str(name) for name in members.keys() - _READERS.keys())
        if unknown:
            raise InvalidRequest(f"terms have no member {unknown[0][:64]!r}")
        if "audiences" not in members:
            raise InvalidRequest("audiences must name at least one audience")
        return cls(**{name: _READERS[name](value, name) for name, value in members.items()})


def _read_text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS or not is_plain(value):
        raise InvalidRequest(f"{name}: 1 to {MAX_TEXT_CHARS} printable characters are needed")
    return value


def is_plain(text: str) -> bool:
    """Return whether every character is printable or a space: no NUL, line end or surrogate."""
    return all(char.isprintable() for char in text)


def _read_texts(value: object, name: str) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > MAX_LISTED:
        raise InvalidRequest(f"{name}: a list of at most {MAX_LISTED} texts is needed")
    return frozenset(_read_text(text, name) for text in value)


def _read_types(value: object, name: str) -> frozenset[str]:
    return frozenset(t.lower().removeprefix("application/") for t in _read_texts(value, name))


def _read_mapping(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_LISTED:
        raise InvalidRequest(f"{name}: an object of at most {MAX_LISTED} members is needed")
    for member in value:
        _read_text(member, name)
    return value


def _read_claims(value: object, name: str) -> Mapping[str, frozenset[str]]:
    return {claim: _read_texts(v, name) for claim, v in _read_mapping(value, name).items()}


def _read_scopes(value: object, name: str) -> frozenset[Scope]:
    try:
        return scopes_of(_read_texts(value, name))
    except ValueError:
        raise InvalidRequest(f"{name}: the scopes are {', '.join(Scope)}") from None


def _read_mapped_scopes(value: object, name: str) -> Mapping[str, Mapping[str, frozenset[Scope]]]:
    return {
        claim: {
            text: _read_scopes(scopes, name) for text, scopes in _read_mapping(values, name).items()
        }
        for claim, values in _read_mapping(value, name).items()
    }


def _read_plan(value: object, name: str) -> str:
    if not isinstance(value, str) or _PLAN_ID.fullmatch(value) is None:
        raise InvalidRequest(f"{name}: the id of a plan is needed")
    return value


def _read_plans(value: object, name: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or len(value) > MAX_LISTED:
        raise InvalidRequest(f"{name}: a list of at most {MAX_LISTED} plans is needed")
    if not all(isinstance(one, dict) and one.keys() == {"value", "plan"} for one in value):
        raise InvalidRequest(f'{name}: {{"value": ..., "plan": ...}} is needed')
    return tuple((_read_text(one["value"], name), _read_plan(one["plan"], name)) for one in value)


def _read_flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: true or false is needed")
    return value


def _read_seconds(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"{name}: a whole number of seconds is needed")
    return value


def _read_family(value: object, name: str) -> Family:
    try:
        return Family(str(value))
    except ValueError:
        raise InvalidRequest(f"{name}: one of {', '.join(Family)} is needed") from None


def _read_url(value: object, name: str) -> str | None:
    if value is None:
        return None
    text = _read_text(value, name)
    read_https_url(text)
    return text


_READERS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "audiences": _read_texts,
        "audience_claim": _read_text,
        "algorithms": _read_family,
        "types": _read_types,
        "may_omit_type": _read_flag,
        "jwks_url": _read_url,
        "max_key_age_s": _read_seconds,
        "required_claims": _read_claims,
        "may_be_id_token": _read_flag,
        "account_claim": _read_text,
        "scopes": _read_mapped_scopes,
        "default_scopes": _read_scopes,
        "plan_claim": lambda value, name: None if value is None else _read_text(value, name),
        "plans": _read_plans,
        "default_plan": lambda value, name: None if value is None else _read_plan(value, name),
        "may_create_accounts": _read_flag,
    }
)
