"""Tags: names that requests carry to a provider, so that its reports lead back to the holds.

The hold id itself is never sent (R3). A tag is the id encrypted with AES-256, with a key that is
derived from the master key: a single block, which is a permutation of all ids. So a tag need not
be stored, no two holds have the same tag, and a reader of tags learns neither a hold id nor how to
make the tag of another hold (docs/adr/0010-provider-reports.md).
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
        # ECB is safe here because there is only one block: no mode could chain it to a second one.
        self._cipher = Cipher(AES(key), ECB())

    @classmethod
    def from_master_key(cls, master_key: bytes) -> "ReportTags":
        """Derive the key, so that authz and the meter agree without another secret."""
        info = b"tollkeeper provider report tag v1"
        return cls(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(master_key))

    def tag(self, hold_id: UUID) -> str:
        """Return the tag of a hold: 32 hexadecimal digits."""
        return self._cipher.encryptor().update(hold_id.bytes).hex()

    def hold_id(self, tag: str) -> UUID | None:
        """Return the hold id of a tag; None for a text that is not 32 hexadecimal digits.

        Any 32 digits lead to some id. Only the books show whether a hold has this id.
        """
        if _TAG.fullmatch(tag) is None:
            return None
        return UUID(bytes=self._cipher.decryptor().update(bytes.fromhex(tag)))

    def __repr__(self) -> str:
        return "ReportTags('***')"
