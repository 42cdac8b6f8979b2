"""Sealing keys: AES-256-GCM, with whose key it is and what it is for as associated data.

A sealed key that is copied to another provider, owner, version or purpose does not open.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from meter.errors import InvalidRequest, SealBroken


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


MASTER_KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


class Context(Protocol):
    """What a sealed key is bound to."""

    @property
    def remedy(self) -> str:
        """What is sealed, and what to do where it does not open: the end of an error message."""
        ...

    def to_bytes(self) -> bytes:
        """The associated data; no two contexts have the same."""
        ...


@dataclass(frozen=True, slots=True)
class SealContext:
    """What a sealed provider key is bound to."""

    provider: str
    owner: str
    key_version: int

    def to_bytes(self) -> bytes:
        """The associated data; the length prefixes keep two contexts from reading alike."""
        parts = (self.provider, self.owner, str(self.key_version))
        return b"tollkeeper provider key v1" + _with_lengths(parts)

    @property
    def remedy(self) -> str:
        """Told to operators."""
        return (
            f"the stored {self.provider} key was sealed under another master key, and "
            "under this one no API key is good either; put the old master key back, or give "
            "every user a new key and run `python -m meter set-provider-key --replace`"
        )


@dataclass(frozen=True, slots=True)
class SigningKeyContext:
    """What a sealed signing key is bound to."""

    owner: str
    kid: str
    key_version: int

    def to_bytes(self) -> bytes:
        """The associated data; never that of a provider key."""
        return b"tollkeeper signing key v1" + _with_lengths(
            (self.owner, self.kid, str(self.key_version))
        )

    @property
    def remedy(self) -> str:
        """Told to operators."""
        return (
            f"the signing key {self.kid} was sealed under another master key; put the old master "
            "key back, or rotate it with `tollkeeper signing-keys rotate --immediately`"
        )


def _with_lengths(parts: tuple[str, ...]) -> bytes:
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


class MasterKey:
    """The key that seals other keys and from which the credential pepper is derived."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != MASTER_KEY_BYTES:
            raise InvalidRequest(f"the master key must be {MASTER_KEY_BYTES} bytes")
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> "MasterKey":
        """Read 64 hexadecimal characters. Raises InvalidRequest with the reason otherwise."""
        try:
            return cls(bytes.fromhex(path.read_text(encoding="ascii").strip()))
        except OSError as error:
            raise InvalidRequest(
                f"the master key file {path} cannot be read: {error.strerror}"
            ) from error
        except ValueError:
            raise InvalidRequest(
                f"the master key file {path} must hold 64 hexadecimal characters"
            ) from None

    def reveal(self) -> bytes:
        """The key itself, for deriving other keys."""
        return self._key

    def seal(self, plain: SecretText, context: Context) -> bytes:
        """Encrypt; the result is nonce and ciphertext."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self._key).encrypt(nonce, plain.reveal().encode(), context.to_bytes())
        return nonce + sealed

    def open(self, sealed: bytes, context: Context) -> SecretText:
        """Decrypt. Raises SealBroken for another master key, another context, or tampering."""
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            plain = AESGCM(self._key).decrypt(nonce, ciphertext, context.to_bytes())
        except InvalidTag:
            raise SealBroken(context.remedy) from None
        return SecretText(plain.decode())

    def __repr__(self) -> str:
        return "MasterKey('***')"
