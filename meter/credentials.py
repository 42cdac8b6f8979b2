"""API keys: how they look, how they are checked before any look-up, how they are stored.

A key reads `tk-<public id>-<secret><checksum>`. The public id finds it in lists and logs. The
secret is 32 random bytes. The checksum lets a typing error or a stray string be refused without
asking the database. Only a keyed digest is stored (docs/adr/0003-keyed-digests.md).
"""

import base64
import hashlib
import hmac
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_PREFIX: Final = "tk-"
PUBLIC_ID_CHARS: Final = 16
SECRET_BYTES: Final = 32
SECRET_CHARS: Final = 43
CHECKSUM_CHARS: Final = 6
KEY_CHARS: Final = len(KEY_PREFIX) + PUBLIC_ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BASE64URL = frozenset(string.ascii_letters + string.digits + "-_")


class SecretText:
    """A string that does not show itself: neither `repr` nor `str` reveals it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself; call it only where the secret leaves for its one destination."""
        return self._text

    def __repr__(self) -> str:
        return "SecretText('***')"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key: shown once, then only its digest remains."""

    credential_id: str
    plain: SecretText
    prefix: str


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key that somebody presented; nothing is known yet about who owns it."""

    credential_id: str
    plain: SecretText


@dataclass(frozen=True, slots=True)
class Pepper:
    """The server-side secret under which key digests are made."""

    key: SecretText

    @classmethod
    def from_master_key(cls, master_key: bytes) -> "Pepper":
        """Derive the pepper, so that one master key guards the digests and the sealed keys."""
        derived = HKDF(
            algorithm=SHA256(), length=32, salt=None, info=b"tollkeeper credential pepper v1"
        ).derive(master_key)
        return cls(SecretText(derived.hex()))

    def digest(self, plain: str) -> bytes:
        """HMAC-SHA-256 of a secret: 32 bytes that mean nothing without the pepper."""
        key = bytes.fromhex(self.key.reveal())
        return hmac.new(key, plain.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()


def mint() -> MintedKey:
    """Make a new key from the operating system's random source."""
    credential_id = "".join(secrets.choice(_BASE32) for _ in range(PUBLIC_ID_CHARS))
    secret = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    body = f"{KEY_PREFIX}{credential_id}-{secret}"
    return MintedKey(
        credential_id=credential_id,
        plain=SecretText(body + _checksum(body)),
        prefix=f"{KEY_PREFIX}{credential_id}",
    )


def parse(text: str) -> PresentedKey | None:
    """Read a presented key; None when it cannot be one of ours (wrong form or checksum)."""
    if len(text) != KEY_CHARS or not text.startswith(KEY_PREFIX):
        return None
    body, checksum = text[:-CHECKSUM_CHARS], text[-CHECKSUM_CHARS:]
    credential_id = body[len(KEY_PREFIX) : len(KEY_PREFIX) + PUBLIC_ID_CHARS]
    secret = body[len(KEY_PREFIX) + PUBLIC_ID_CHARS + 1 :]
    well_formed = (
        body[len(KEY_PREFIX) + PUBLIC_ID_CHARS] == "-"
        and all(char in _BASE32 for char in credential_id)
        and _BASE64URL.issuperset(secret)
    )
    if not well_formed or checksum != _checksum(body):
        return None
    return PresentedKey(credential_id, SecretText(text))


def _checksum(body: str) -> str:
    remaining = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(CHECKSUM_CHARS):
        remaining, digit = divmod(remaining, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
