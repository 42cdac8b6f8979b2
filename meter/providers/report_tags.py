"""Tags: what a provider is told about a request, so that its report leads back to the hold.

The hold id itself never leaves (rule R3). A tag is the id under AES-256, with a key of its own
that follows from the master key: a single block, which is a permutation of all ids. So a tag
needs no place in the database, no two holds have the same one, and whoever reads tags learns
neither a hold id nor how to make the tag of another hold (docs/adr/0010-provider-reports.md).
"""

import re
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

TAG_CHARS: Final = 32
_TAG = re.compile(rf"[0-9a-f]{{{TAG_CHARS}}}")


class ReportTags:
    """Turns hold ids into tags and back."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        # One block and no more: there is no second one that a mode could chain.
        self._cipher = Cipher(AES(key), ECB())

    @classmethod
    def from_master_key(cls, master_key: bytes) -> "ReportTags":
        """Derive the key, so that authz and the meter agree without another secret."""
        info = b"tollkeeper provider report tag v1"
        return cls(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(master_key))

    def tag(self, hold_id: UUID) -> str:
        """The tag of a hold: 32 hexadecimal digits."""
        return self._cipher.encryptor().update(hold_id.bytes).hex()

    def hold_id(self, tag: str) -> UUID | None:
        """The hold id behind a tag; None when it does not look like one.

        Any 32 digits lead to some id. Whether it is that of a hold, the books know.
        """
        if _TAG.fullmatch(tag) is None:
            return None
        return UUID(bytes=self._cipher.decryptor().update(bytes.fromhex(tag)))

    def __repr__(self) -> str:
        return "ReportTags('***')"
