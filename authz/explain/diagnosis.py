"""The real reason why a credential is refused: for operators, never for the client."""

import base64
import binascii
import json
import re
from typing import Final

from authz.callers.authenticate import read_credential
from authz.decision import Deny
from authz.explain.dry_run import DecisionTrace
from authz.request import AuthRequest
from meter.holds.dry_run import DryRun
from meter.identity.credential_state import CredentialState, find_fault
from meter.identity.keys.key_text import KEY_CHARS, KEY_PREFIX, PUBLIC_ID_CHARS, parse
from meter.identity.principal import ByAccount, ByCertificate, ByIdentity, ByKey, ByPass, Presented
from meter.jwts.reading import MAX_JWT_CHARS, looks_like_jwt
from meter.jwts.verifying import JwtVerifier

NONE_PRESENTED: Final = "none"
# The hyphen is required: without it, the text after the prefix may be part of a damaged secret.
_PUBLIC_PART: Final = re.compile(rf"({KEY_PREFIX}[a-z2-7]{{{PUBLIC_ID_CHARS}}})-")


def show_credential(request: AuthRequest) -> str:
    """Return a description of the credential, without the part that makes it a secret."""
    presented = read_credential(request)
    if isinstance(presented, Deny):
        return f"a certificate of {request.certificate}" if request.certificate else NONE_PRESENTED
    if looks_like_jwt(presented):
        if len(presented) > MAX_JWT_CHARS:
            return "a JWT: (too long).(too long)"
        # The signature, the third part, is never shown.
        return f"a JWT: {'.'.join(_show_part(part) for part in presented.split('.')[:2])}"
    public = _PUBLIC_PART.match(presented)
    if public is not None:
        return public[1]
    return f"{len(presented)} characters that are no key of ours"


def _show_part(part: str) -> str:
    """Return a part of a JWT as JSON."""
    try:
        octets = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        return json.dumps(json.loads(octets), ensure_ascii=True)
    except (ValueError, RecursionError, binascii.Error):
        return "(cannot be read)"


async def diagnose(
    dry_run: DryRun, jwts: JwtVerifier, request: AuthRequest, trace: DecisionTrace
) -> str:
    """Return why the credential of a request is refused, as a sentence.

    Raises StoreUnavailable.
    """
    if trace.principal is not None:
        # The credential was live when it was found. It expired, or was revoked, before the hold.
        state = await dry_run.find_state(trace.principal.credential_id)
        return _describe(state, "There is no such credential.")
    credential = read_credential(request)
    if trace.presented is None:
        if isinstance(credential, Deny):
            return credential.message
        if looks_like_jwt(credential):
            return f"The JWT is refused: {(await jwts.verify_with_reason(credential)).reason}."
        if not credential.startswith(KEY_PREFIX):
            return f"It is no key of ours: those begin with {KEY_PREFIX} (a JWT has two dots)."
        if len(credential) != KEY_CHARS:
            return (
                f"A key has {KEY_CHARS} characters and this has {len(credential)}: it is not whole."
            )
        return "Its checksum is wrong: a character was mistyped. It was not looked up."
    credential_id: str | None
    digest: bytes | None = None
    pass_id: str | None = None
    match trace.presented:
        case ByKey(digest):
            key = parse(credential) if isinstance(credential, str) else None
            credential_id = None if key is None else key.credential_id
        case ByPass(verified):
            pass_id = verified.pass_id
            credential_id = await dry_run.find_owner(pass_id=pass_id)
        case ByIdentity(verified):
            subjects = [verified.subject, f"{verified.subject}\n{verified.account_subject}"]
            credential_id = await dry_run.find_owner(verified.issuer_id, subjects)
        case ByCertificate(name):
            # Names in certificates are stored as subjects of the issuer with the empty id.
            credential_id = await dry_run.find_owner("", [name])
        case ByAccount(account_id):
            credential_id = await dry_run.find_owner(account_id=account_id)
    unknown = f"{_describe_unknown(trace.presented)}."
    if credential_id is None:
        return unknown
    return _describe(await dry_run.find_state(credential_id, digest, pass_id), unknown)


def _describe_unknown(presented: Presented) -> str:
    match presented:
        case ByIdentity(verified):
            made = "and no account could be made" if verified.may_create else "and none may be made"
            who = f"{verified.subject} of {verified.issuer_id}"
            return f"No account is known for {who}, {made}"
        case ByCertificate(name):
            return f"No account is mapped to the certificate of {name}"
        case ByPass():
            return "The pass is signed by us, and the books do not know it"
        case ByAccount(account_id):
            return f"There is no account {account_id}"
        case ByKey():
            return (
                "There never was a key with this id: it belongs to another installation, "
                "or is made up"
            )


def _describe(state: CredentialState | None, unknown: str) -> str:
    if state is None:
        return unknown
    fault = find_fault(state) or "is valid now: it changed while it was looked at"
    return f"The {state.kind.value} {state.id} ({state.name}) of {state.account_id} {fault}."
