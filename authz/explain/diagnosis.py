"""What really is wrong with a credential: for operators, never for whoever presented it."""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Final, Protocol

from authz.callers.authenticate import presented_credential
from authz.decision import Deny
from authz.explain.trace import LookUp, Seen
from authz.request import AuthRequest
from meter.identity.credential_state import CredentialState, what_is_wrong
from meter.identity.keys.key_text import KEY_CHARS, KEY_PREFIX, PUBLIC_ID_CHARS, parse
from meter.jwts.reading import MAX_JWT_CHARS, looks_like_jwt

NONE_PRESENTED: Final = "none"
# With its hyphen: without one, what follows the prefix may be a secret that was cut or mangled.
_PUBLIC_PART: Final = re.compile(rf"({KEY_PREFIX}[a-z2-7]{{{PUBLIC_ID_CHARS}}})-")


class States(Protocol):
    """`meter.holds.trial.Trial` is one."""

    async def find_owner(
        self,
        pass_id: str | None = None,
        issuer_id: str | None = None,
        subjects: Sequence[str] = (),
        account_id: str | None = None,
    ) -> str | None:
        """The credential behind one of these, live or not."""
        ...

    async def find_state(
        self, credential_id: str, digest: bytes | None = None, pass_id: str | None = None
    ) -> CredentialState | None:
        """What became of a credential."""
        ...


def show_credential(request: AuthRequest) -> str:
    """What was presented, without what makes it a secret."""
    presented = presented_credential(request)
    if isinstance(presented, Deny):
        return f"a certificate of {request.certificate}" if request.certificate else NONE_PRESENTED
    if looks_like_jwt(presented):
        return f"a JWT: {_shown_part(presented, 0)}.{_shown_part(presented, 1)}"
    public = _PUBLIC_PART.match(presented)
    if public is not None:
        return public[1]
    return f"{len(presented)} characters that are no key of ours"


def _shown_part(jwt: str, index: int) -> str:
    """A part of a JWT as JSON; never the signature."""
    if len(jwt) > MAX_JWT_CHARS:
        return "(too long)"
    part = jwt.split(".")[index]
    try:
        octets = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        return json.dumps(json.loads(octets), ensure_ascii=True)
    except (ValueError, RecursionError, binascii.Error):
        return "(cannot be read)"


async def diagnose(states: States, request: AuthRequest, seen: Seen) -> str:
    """Why the credential of a request is refused, as a sentence. Raises StoreUnavailable."""
    if seen.principal is not None:
        return _say(await states.find_state(seen.principal.credential_id))
    if seen.look_up is not None:
        return await _diagnose_look_up(states, request, seen.look_up)
    if seen.examination is not None:
        return f"The JWT is refused: {seen.examination.reason}."
    presented = presented_credential(request)
    if isinstance(presented, Deny):
        return presented.message
    return _describe_form(presented)


def _describe_form(text: str) -> str:
    """Why it is no key, without a look-up."""
    if not text.startswith(KEY_PREFIX):
        return f"It is no key of ours: those begin with {KEY_PREFIX} (a JWT has two dots)."
    if len(text) != KEY_CHARS:
        return f"A key has {KEY_CHARS} characters and this has {len(text)}: it is not whole."
    return "Its checksum is wrong: a character was mistyped. It was not looked up."


async def _diagnose_look_up(states: States, request: AuthRequest, look_up: LookUp) -> str:
    if look_up.digest is not None:
        presented = presented_credential(request)
        key = parse(presented) if isinstance(presented, str) else None
        credential_id = None if key is None else key.credential_id
    else:
        credential_id = await _find_owner(states, look_up)
    if credential_id is None:
        return f"{_unknown(look_up)}."
    state = await states.find_state(credential_id, look_up.digest, look_up.pass_id)
    return f"{_unknown(look_up)}." if state is None else _say(state)


async def _find_owner(states: States, look_up: LookUp) -> str | None:
    if look_up.identity is not None:
        identity = look_up.identity
        subjects = [identity.subject, f"{identity.subject}\n{identity.account_subject}"]
        return await states.find_owner(issuer_id=identity.issuer_id, subjects=subjects)
    if look_up.certificate is not None:
        return await states.find_owner(issuer_id="", subjects=[look_up.certificate])
    return await states.find_owner(pass_id=look_up.pass_id, account_id=look_up.account_id)


def _unknown(look_up: LookUp) -> str:
    if look_up.identity is not None:
        identity = look_up.identity
        made = "and no account could be made" if identity.may_create else "and none may be made"
        return f"No account is known for {identity.subject} of {identity.issuer_id}, {made}"
    if look_up.certificate is not None:
        return f"No account is mapped to the certificate of {look_up.certificate}"
    if look_up.pass_id is not None:
        return "The pass is signed by us, and the books do not know it"
    if look_up.account_id is not None:
        return f"There is no account {look_up.account_id}"
    return "There never was a key with this id: it belongs to another installation, or is made up"


def _say(state: CredentialState | None) -> str:
    if state is None:
        return "There is no such credential."
    wrong = what_is_wrong(state) or "is good now: it changed while it was looked at"
    return f"The {state.kind.value} {state.id} ({state.name}) of {state.account_id} {wrong}."
