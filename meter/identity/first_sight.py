"""First sight of identities: who a JWT of another issuer speaks for becomes an account of ours.

Two issuers can never meet in one account. The id of an account that is opened here is a digest of
issuer and subject, each with its length before it, and its email names the issuer: who finds the
id taken by anything else is refused.
"""

import base64
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import structlog

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.identity.keys.key_text import new_credential_id
from meter.jwts.terms import is_plain
from meter.jwts.verifying import VerifiedIdentity
from meter.postgres.pool import PostgresConnection, queries

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.identity")
_FIND_IDENTITY: Final = _QUERIES["find_identity"]
_OPEN_IDENTITY_ACCOUNT: Final = _QUERIES["open_identity_account"]
_CREATE_IDENTITY: Final = _QUERIES["create_identity"]
_LOCK_ACCOUNT: Final = _QUERIES["lock_account"]
_NOTE_IDENTITY_TOKEN: Final = _QUERIES["note_identity_token"]
_MOVE_TO_PLAN: Final = _QUERIES["move_to_plan"]

FIRST_SIGHT: Final = "first_sight"
ACCOUNT_PREFIX: Final = "oidc_"
ACCOUNT_DIGEST_CHARS: Final = 20
MAX_SUBJECT_CHARS: Final = 512
MAX_NAME_CHARS: Final = 200
# How many unknown plans are remembered as logged.
MAX_LOGGED_PLANS: Final = 256
# Between the two parts of a subject: no subject holds a line end.
_SEPARATOR: Final = "\n"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def account_id_for(issuer_id: str, account_subject: str) -> str:
    """The id of the account of an issuer's subject: the same everywhere, and nobody else's."""
    digest = hashlib.sha256()
    for part in (issuer_id, account_subject):
        octets = part.encode()
        digest.update(len(octets).to_bytes(4, "big") + octets)
    name = base64.b32encode(digest.digest()).decode().lower()
    return ACCOUNT_PREFIX + name[:ACCOUNT_DIGEST_CHARS]


def stored_subject(subject: str, account_subject: str) -> str:
    """What tells credentials of an issuer apart: who acts, and for which account where that is
    another claim, so that somebody who moves on does not act for the account they left."""
    return subject if subject == account_subject else subject + _SEPARATOR + account_subject


def shown_subject(stored: str) -> tuple[str, str]:
    """Who acts, and the account's subject, of a stored subject."""
    subject, _, account_subject = stored.partition(_SEPARATOR)
    return subject, account_subject or subject


async def ensure_identity(connection: PostgresConnection, identity: VerifiedIdentity) -> str | None:
    """The id of the credential of an identity, made at first sight where that is allowed.

    None where it is not allowed, or where the account's place is taken by something else. Puts
    the account on the plan that the youngest JWT asks for; an older one never brings an old plan
    back. Safe when several processes see the same identity at once.
    """
    subject = stored_subject(identity.subject, identity.account_subject)
    if not _is_storable(identity, subject):
        return None
    found = await _find(connection, identity, subject)
    if found is None and identity.may_create:
        await _create(connection, identity, subject)
        found = await _find(connection, identity, subject)
    if found is None:
        return None
    if _may_change_plan(identity, found):
        await _follow_plan(connection, identity, found)
    return str(found["id"])


def _is_storable(identity: VerifiedIdentity, subject: str) -> bool:
    texts = (identity.subject, identity.account_subject)
    return len(subject) <= MAX_SUBJECT_CHARS and all(text and is_plain(text) for text in texts)


async def _find(
    connection: PostgresConnection, identity: VerifiedIdentity, subject: str
) -> "Record | None":
    """A link that an administrator made goes before what was first seen."""
    subjects = [subject, identity.subject]
    return await connection.fetchrow(
        _FIND_IDENTITY, identity.issuer_id, subjects, subject, FIRST_SIGHT
    )


async def _create(connection: PostgresConnection, identity: VerifiedIdentity, subject: str) -> None:
    account_id = account_id_for(identity.issuer_id, identity.account_subject)
    email = f"{account_id}@{identity.issuer_id}.invalid"
    asked_plan = identity.plan_id or identity.first_plan_id
    async with connection.transaction():
        plan_id = await connection.fetchval(
            _OPEN_IDENTITY_ACCOUNT,
            account_id,
            email,
            _name(identity),
            asked_plan,
            identity.issuer_id,
        )
        credential_id = await connection.fetchval(
            _CREATE_IDENTITY,
            new_credential_id(),
            account_id,
            email,
            identity.issuer_id,
            subject,
            FIRST_SIGHT,
            # Where the account was there before, its plan has yet to follow this JWT.
            None if plan_id is None else identity.issued_at,
        )
        if credential_id is not None:
            await _audit_first_sight(connection, identity, account_id, credential_id)
    if plan_id is not None and asked_plan not in (None, plan_id):
        _warn_of_unknown_plan(identity.issuer_id, str(asked_plan))


async def _audit_first_sight(
    connection: PostgresConnection, identity: VerifiedIdentity, account_id: str, credential_id: str
) -> None:
    detail = {"issuer": identity.issuer_id, "subject": identity.subject}
    event = AuditEvent("identity.first_seen", f"identity:{credential_id}", account_id, detail)
    await write_audit(connection, Actor(f"identity:{credential_id}", account_id), event)


def _may_change_plan(identity: VerifiedIdentity, found: "Record") -> bool:
    if identity.plan_id is None or not found["is_live"]:
        return False
    newest = found["token_issued_at"]
    return newest is None or identity.issued_at > newest


async def _follow_plan(
    connection: PostgresConnection, identity: VerifiedIdentity, found: "Record"
) -> None:
    account_id, credential_id, plan_id = found["account_id"], found["id"], identity.plan_id
    async with connection.transaction():
        await connection.execute(_LOCK_ACCOUNT, account_id)
        noted = await connection.fetchval(_NOTE_IDENTITY_TOKEN, credential_id, identity.issued_at)
        if noted is None:
            return
        before = await connection.fetchval(_MOVE_TO_PLAN, account_id, plan_id)
        if before is not None:
            event = AuditEvent(
                "user.changed",
                f"user:{account_id}",
                account_id,
                {"plan_id": {"from": before, "to": plan_id}},
            )
            await write_audit(connection, Actor(f"identity:{credential_id}", account_id), event)
    if before is None and plan_id is not None and plan_id != found["plan_id"]:
        _warn_of_unknown_plan(identity.issuer_id, plan_id)


def _name(identity: VerifiedIdentity) -> str | None:
    """For display only; what could rewrite somebody's terminal is left out."""
    name = (identity.name or "").strip()
    return name[:MAX_NAME_CHARS] if name and is_plain(name) else None


@lru_cache(maxsize=MAX_LOGGED_PLANS)
def _warn_of_unknown_plan(issuer_id: str, plan_id: str) -> None:
    """Once for each plan: every JWT of the issuer would say it again."""
    _log.warning("identity_plan_unknown", issuer_id=issuer_id, plan_id=plan_id)
