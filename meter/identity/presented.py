"""The one rule by which a request presents a credential, for authz and for the meter API alike."""

from collections.abc import Sequence
from typing import Final

_SCHEME: Final = "bearer "


class ConflictingCredentials(Exception):
    """A request presents different credentials, or one header several times."""


def find_credential(authorizations: Sequence[str], api_keys: Sequence[str]) -> str | None:
    """Return the one credential in the headers `authorization` and `x-api-key`, None for none.

    Each argument has every value of its header. Raises ConflictingCredentials for two different
    credentials: choosing one would let two readers of the same request choose differently. A
    repeated header is refused for the same reason, and so is a comma, which shows that several
    headers were joined on the way. No credential of ours contains a comma.
    """
    if len(authorizations) == 1 and not api_keys and "," not in authorizations[0]:
        return without_scheme(authorizations[0]) or None
    if (
        len(authorizations) > 1
        or len(api_keys) > 1
        or any("," in value for value in (*authorizations, *api_keys))
    ):
        raise ConflictingCredentials
    presented = {without_scheme(value) for value in authorizations}
    presented |= {value.strip() for value in api_keys}
    presented.discard("")
    if len(presented) > 1:
        raise ConflictingCredentials
    return presented.pop() if presented else None


def without_scheme(authorization: str) -> str:
    """Return the credential after `Bearer`, empty when there is none.

    The value of another scheme is returned whole: it is presented, and it is no key of ours.
    """
    if authorization[: len(_SCHEME)].lower() == _SCHEME:
        return authorization[len(_SCHEME) :].strip()
    return "" if authorization.strip().lower() == "bearer" else authorization.strip()
