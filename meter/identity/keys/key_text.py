"""The text of API keys: its form, its checksum, and the digest that is stored.

A key reads `tk-<public id>-<secret><checksum>`. The public id names the key in lists and logs. The
secret is 32 random bytes. With the checksum, a mistyped key or any other text is refused without a
query to the database. Only a keyed digest is stored (docs/adr/0003-keyed-digests.md).
"""

import base64
import hashlib
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

# The block of SHA-256, and the pads of HMAC (RFC 2104).
_BLOCK_BYTES: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Two digits of a number with the base 62.
_PAIRS = [high + low for high in _BASE62 for low in _BASE62]
_FORM = re.compile(
    rf"{KEY_PREFIX}[{_BASE32}]{{{PUBLIC_ID_CHARS}}}"
    rf"-[A-Za-z0-9_-]{{{SECRET_CHARS}}}[A-Za-z0-9]{{{CHECKSUM_CHARS}}}"
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

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        # HMAC with its two beginnings hashed once: the library would look up the algorithm and
        # hash them for each digest, which takes four times as long.
        if len(key) > _BLOCK_BYTES:
            key = hashlib.sha256(key).digest()
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))

    @classmethod
    def from_master_key(cls, master_key: bytes) -> "Pepper":
        """Derive the pepper, so that one master key protects the digests and the sealed keys."""
        info = b"tollkeeper credential pepper v1"
        return cls(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(master_key))

    def digest(self, plain: str) -> bytes:
        """Return the HMAC-SHA-256 of a secret: 32 bytes that reveal nothing without the pepper."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(plain.encode("utf-8", "surrogateescape"))
        outer.update(inner.digest())
        return outer.digest()

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
    if not is_well_formed(text):
        return None
    start = len(KEY_PREFIX)
    return PresentedKey(text[start : start + PUBLIC_ID_CHARS], SecretText(text))


def is_well_formed(text: str) -> bool:
    """Return whether text has the form and the checksum of a key."""
    if _FORM.fullmatch(text) is None:
        return False
    return text.endswith(_checksum(text[:-CHECKSUM_CHARS]))


def _checksum(body: str) -> str:
    high, low = divmod(zlib.crc32(body.encode("ascii")), len(_PAIRS))
    highest, high = divmod(high, len(_PAIRS))
    return _PAIRS[highest] + _PAIRS[high] + _PAIRS[low]
