"""The text of API keys: its form, its checksum, and the digest that is stored.

A key reads `tk-<public id>-<secret><checksum>`. The public id names the key in lists and logs. The
secret is 32 random bytes. With the checksum, a mistyped key or any other text is refused without a
query to the database. Only a keyed digest is stored (docs/adr/0003-keyed-digests.md).
"""

import base64
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meter.sealing import SecretText

KEY_PREFIX: Final = "tk-"
PUBLIC_ID_CHARS: Final = 16
SECRET_BYTES: Final = 32
SECRET_CHARS: Final = 43
CHECKSUM_CHARS: Final = 6
KEY_CHARS: Final = len(KEY_PREFIX) + PUBLIC_ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM = re.compile(
    rf"{KEY_PREFIX}(?P<id>[{_BASE32}]{{{PUBLIC_ID_CHARS}}})"
    rf"-[A-Za-z0-9_-]{{{SECRET_CHARS}}}(?P<checksum>[A-Za-z0-9]{{{CHECKSUM_CHARS}}})"
)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. Its text is shown once; only its digest is stored."""

    credential_id: str
    plain: SecretText
    prefix: str


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key of a request; its owner is not known yet."""

    credential_id: str
    plain: SecretText


class Pepper:
    """The secret of the server that the digests of keys are computed with."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_master_key(cls, master_key: bytes) -> "Pepper":
        """Derive the pepper, so that one master key protects the digests and the sealed keys."""
        info = b"tollkeeper credential pepper v1"
        return cls(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(master_key))

    def digest(self, plain: str) -> bytes:
        """Return the HMAC-SHA-256 of a secret: 32 bytes that reveal nothing without the pepper."""
        return hmac.digest(self._key, plain.encode("utf-8", "surrogateescape"), "sha256")

    def __repr__(self) -> str:
        return "Pepper('***')"


def new_credential_id() -> str:
    """Return a new random public id."""
    return "".join(secrets.choice(_BASE32) for _ in range(PUBLIC_ID_CHARS))


def mint(credential_id: str | None = None) -> MintedKey:
    """Create a key, or a new secret for the key with this id, from the system's random source."""
    credential_id = credential_id or new_credential_id()
    secret = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    body = f"{KEY_PREFIX}{credential_id}-{secret}"
    return MintedKey(
        credential_id=credential_id,
        plain=SecretText(body + _checksum(body)),
        prefix=f"{KEY_PREFIX}{credential_id}",
    )


def parse(text: str) -> PresentedKey | None:
    """Read the text of a key. Returns None for a wrong form or checksum: no key of ours."""
    form = _FORM.fullmatch(text)
    if form is None or form["checksum"] != _checksum(text[:-CHECKSUM_CHARS]):
        return None
    return PresentedKey(form["id"], SecretText(text))


def _checksum(body: str) -> str:
    remaining = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(CHECKSUM_CHARS):
        remaining, digit = divmod(remaining, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
