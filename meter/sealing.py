"""Encryption of stored keys: AES-256-GCM, with the owner and purpose as associated data.

A sealed key that is copied to another provider, owner, version or purpose cannot be opened.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from meter.errors import InvalidRequest, SealBroken


class SecretText:
    """A string that neither `repr` nor `str` reveals."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret. Call this only where the secret is sent to its one destination."""
        return self._text

    def __repr__(self) -> str:
        return "SecretText('***')"

    __str__ = __repr__


MASTER_KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


class Context(Protocol):
    """The use that a sealed key is bound to."""

    @property
    def remedy(self) -> str:
        """Return the end of an error message: the key that does not open, and what to do."""
        ...

    def to_bytes(self) -> bytes:
        """Return the associated data; no two contexts have the same."""
        ...


@dataclass(frozen=True, slots=True)
class SealContext:
    """The provider, owner and version that a sealed provider key is bound to."""

    provider: str
    owner: str
    key_version: int

    def to_bytes(self) -> bytes:
        """Return the associated data; length prefixes keep that of two contexts different."""
        parts = (self.provider, self.owner, str(self.key_version))
        return b"tollkeeper provider key v1" + _with_lengths(parts)

    @property
    def remedy(self) -> str:
        """Told to operators."""
        return (
            f"the stored {self.provider} key was sealed under another master key; with this master "
            "key, no API key is valid either. Put the old master key back, or give every user a "
            "new key and run `python -m meter set-provider-key --replace`"
        )


@dataclass(frozen=True, slots=True)
class SigningKeyContext:
    """The owner, id and version that a sealed signing key is bound to."""

    owner: str
    kid: str
    key_version: int

    def to_bytes(self) -> bytes:
        """Return the associated data, which is never that of a provider key."""
        return b"tollkeeper signing key v1" + _with_lengths(
            (self.owner, self.kid, str(self.key_version))
        )

    @property
    def remedy(self) -> str:
        """Told to operators."""
        return (
            f"the signing key {self.kid} was sealed under another master key. Put the old master "
            "key back, or rotate it with `tollkeeper signing-keys rotate --immediately`"
        )


@dataclass(frozen=True, slots=True)
class SinkContext:
    """The sink and version that a sealed credential is bound to."""

    sink_id: str
    key_version: int

    def to_bytes(self) -> bytes:
        """Return the associated data, which is never that of another kind of key."""
        return b"tollkeeper sink credential v1" + _with_lengths(
            (self.sink_id, str(self.key_version))
        )

    @property
    def remedy(self) -> str:
        """Told to operators."""
        return (
            f"the credential of the sink {self.sink_id} was sealed under another master key. Put "
            "the old master key back, or set the credential again"
        )


@dataclass(frozen=True, slots=True)
class WebhookContext:
    """The account and webhook that a sealed signing secret is bound to."""

    account_id: str
    webhook_id: str

    def to_bytes(self) -> bytes:
        """Return the associated data, which is never that of another kind of key."""
        return b"tollkeeper webhook secret v1" + _with_lengths((self.account_id, self.webhook_id))

    @property
    def remedy(self) -> str:
        """Told to operators."""
        return (
            f"the secret of the webhook {self.webhook_id} was sealed under another master key. "
            "Put the old master key back, or have the user make another webhook"
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
        """Read a file of 64 hexadecimal characters. Raises InvalidRequest with the reason."""
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
        """Return the key, so that other keys can be derived from it."""
        return self._key

    def seal(self, plain: SecretText, context: Context) -> bytes:
        """Encrypt a secret; returns the nonce followed by the ciphertext."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self._key).encrypt(nonce, plain.reveal().encode(), context.to_bytes())
        return nonce + sealed

    def open(self, sealed: bytes, context: Context) -> SecretText:
        """Decrypt a secret.

        Raises SealBroken for another master key, another context, or a changed ciphertext.
        """
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            plain = AESGCM(self._key).decrypt(nonce, ciphertext, context.to_bytes())
        except InvalidTag:
            raise SealBroken(context.remedy) from None
        return SecretText(plain.decode())

    def __repr__(self) -> str:
        return "MasterKey('***')"
