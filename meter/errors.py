"""Every exception that the meter raises on purpose.

::

    MeterError
    ├── InvalidAmount          an amount that is not money as we write it
    ├── InvalidRequest         a command that cannot be carried out as it was given
    ├── NotFound               the named thing does not exist (or belongs to somebody else)
    ├── Conflict               the command contradicts what is already recorded
    ├── NotPermitted           the caller may not do this, whoever else may
    ├── BrokenInvariant        the books contradict themselves: stop, do not guess
    ├── SealBroken             a sealed secret does not open under this master key
    ├── JwtRefused             a JWT that is not believed
    └── Outage                 something that we depend on does not answer
        ├── StoreUnavailable   Postgres
        ├── ProviderUnavailable  the upstream
        ├── IssuerUnavailable  an issuer of JWTs
        └── EnvoyUnavailable   Envoy's administration interface

A refusal is a value, an outage is an exception, a broken invariant is a crash.
"""


class MeterError(Exception):
    """The root: catch this at a border, and nowhere else."""


class InvalidAmount(MeterError):
    """An amount that is not a decimal string of US dollars within the bounds of a ledger entry."""


class InvalidRequest(MeterError):
    """A command that cannot be carried out as it was given; the message says why."""


class NotFound(MeterError):
    """The named thing does not exist, or it belongs to somebody else (both look the same)."""


class Conflict(MeterError):
    """The command contradicts what is already recorded, such as a reused idempotency key."""


class NotPermitted(MeterError):
    """The caller may not do this; the message says what stands against it."""


class BrokenInvariant(MeterError):
    """The books contradict themselves; no handler may swallow this."""


class SealBroken(MeterError):
    """A sealed secret does not open: another master key, another owner, or tampering."""


class JwtRefused(MeterError):
    """A JWT that is not believed. The reason is for operators: clients hear none (rule R12)."""


class Outage(MeterError):
    """Something that we depend on does not answer; trying again may help."""


class StoreUnavailable(Outage):
    """Postgres does not answer, or refuses writes."""


class ProviderUnavailable(Outage):
    """The upstream does not answer, or answers what cannot be understood.

    `retry_after_s` is how long it asks us to wait, None where it does not.
    """

    def __init__(self, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class IssuerUnavailable(Outage):
    """An issuer of JWTs does not answer, or not what can be believed; the message says why."""


class EnvoyUnavailable(Outage):
    """Envoy's administration interface does not answer, or answers what cannot be understood."""
