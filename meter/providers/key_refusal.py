"""A provider's refusal of our key, in words. Imports nothing, so that the command line may."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyRefusal:
    """A provider's refusal of our key: the HTTP status, and the reason for an administrator."""

    status: int
    reason: str

    def advice(self, provider: str) -> str:
        """Return a sentence for an administrator: what is wrong, its effect, and what to do."""
        return (
            f"{provider} refuses our key with {self.status} ({self.reason}), so requests are "
            f"answered 503: tollkeeper providers set-key {provider}"
        )
