"""Creates an account and a credential when a JWT of another issuer names a new subject.

Two issuers never share an account. The id of an account that is opened here is a digest of issuer
and subject, each with its length before it, and its email names the issuer. Where the id belongs
to any other account, the JWT is refused.
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
from meter.jwts.verified import VerifiedIdentity
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

# The stored value of `created_by`.
CREATED_BY_FIRST_USE: Final = "first_sight"
ACCOUNT_PREFIX: Final = "oidc_"
ACCOUNT_DIGEST_CHARS: Final = 20
MAX_SUBJECT_CHARS: Final = 512
MAX_NAME_CHARS: Final = 200
# The number of unknown plans that are remembered, so that each is logged once.
MAX_LOGGED_PLANS: Final = 256
# Stands between the two parts of a stored subject: no subject contains a line end.
_SEPARATOR: Final = "\n"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def account_id_for(issuer_id: str, account_subject: str) -> str:
    """Return the id of the account of an issuer's subject; no other subject has this id."""
    digest = hashlib.sha256()
    for part in (issuer_id, account_subject):
        octets = part.encode()
        digest.update(len(octets).to_bytes(4, "big") + octets)
    name = base64.b32encode(digest.digest()).decode().lower()
    return ACCOUNT_PREFIX + name[:ACCOUNT_DIGEST_CHARS]


def stored_subject(subject: str, account_subject: str) -> str:
    """Return the text that distinguishes the credentials of an issuer.

    It is the subject, followed by the account's subject where that is another claim. So a subject
    that moves to another account gets another credential, and cannot act for the former account.
    """
    return subject if subject == account_subject else subject + _SEPARATOR + account_subject


def shown_subject(stored: str) -> tuple[str, str]:
    """Split a stored subject into the subject that acts and the subject of its account."""
    subject, _, account_subject = stored.partition(_SEPARATOR)
    return subject, account_subject or subject


async def ensure_identity(connection: PostgresConnection, identity: VerifiedIdentity) -> str | None:
    """Return the id of an identity's credential; create it at first use if that is allowed.

    Returns None where creating is not allowed, or where the id of the account is taken by another
    account. Moves the account to the plan that the JWT asks for, unless a newer JWT was seen
    before. Several processes may do this for one identity at the same time.
    """
    subject = stored_subject(identity.subject, identity.account_subject)
    texts = (identity.subject, identity.account_subject)
    if len(subject) > MAX_SUBJECT_CHARS or not all(text and is_plain(text) for text in texts):
        return None
    found = await _find(connection, identity, subject)
    if found is None and identity.may_create:
        await _create(connection, identity, subject)
        found = await _find(connection, identity, subject)
    if found is None:
        return None
    if identity.plan_id is not None and found["is_live"]:
        newest = found["token_issued_at"]
        if newest is None or identity.issued_at > newest:
            await _follow_plan(connection, identity, found)
    return str(found["id"])


async def _find(
    connection: PostgresConnection, identity: VerifiedIdentity, subject: str
) -> "Record | None":
    """Find the credential; a link by an administrator takes precedence over one made here."""
    subjects = [subject, identity.subject]
    return await connection.fetchrow(
        _FIND_IDENTITY, identity.issuer_id, subjects, subject, CREATED_BY_FIRST_USE
    )


async def _create(connection: PostgresConnection, identity: VerifiedIdentity, subject: str) -> None:
    account_id = account_id_for(identity.issuer_id, identity.account_subject)
    email = f"{account_id}@{identity.issuer_id}.invalid"
    asked_plan = identity.plan_id or identity.first_plan_id
    # For display only. A name with control characters could attack a terminal, so it is left out.
    name = (identity.name or "").strip()
    async with connection.transaction():
        plan_id = await connection.fetchval(
            _OPEN_IDENTITY_ACCOUNT,
            account_id,
            email,
            name[:MAX_NAME_CHARS] if name and is_plain(name) else None,
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
            CREATED_BY_FIRST_USE,
            # An account that existed before has not been moved to the plan of this JWT yet.
            None if plan_id is None else identity.issued_at,
        )
        if credential_id is not None:
            author = f"identity:{credential_id}"
            detail = {"issuer": identity.issuer_id, "subject": identity.subject}
            event = AuditEvent("identity.first_seen", author, account_id, detail)
            await write_audit(connection, Actor(author, account_id), event)
    if plan_id is not None and asked_plan not in (None, plan_id):
        _warn_of_unknown_plan(identity.issuer_id, str(asked_plan))


async def _follow_plan(
    connection: PostgresConnection, identity: VerifiedIdentity, found: "Record"
) -> None:
    account_id, credential_id, plan_id = found["account_id"], found["id"], identity.plan_id
    async with connection.transaction():
        await connection.execute(_LOCK_ACCOUNT, account_id)
        # Another process may have seen a newer JWT since the row was read.
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


@lru_cache(maxsize=MAX_LOGGED_PLANS)
def _warn_of_unknown_plan(issuer_id: str, plan_id: str) -> None:
    """Log each unknown plan once, not again for every JWT of the issuer."""
    _log.warning("identity_plan_unknown", issuer_id=issuer_id, plan_id=plan_id)
