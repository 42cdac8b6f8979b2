"""Every exception that the meter raises on purpose.

::

    MeterError
    ├── InvalidAmount          an amount that is not written as we write money
    ├── InvalidRequest         a command that cannot be carried out as it was given
    │   └── UnknownReference   a command that names a plan, user, key or issuer that does not exist
    ├── NotFound               the named thing does not exist, or belongs to another account
    ├── Conflict               the command contradicts what is already recorded
    ├── NotPermitted           the caller may not do this, though others may
    ├── BrokenInvariant        the books contradict themselves, so the process stops
    ├── SealBroken             a sealed secret does not open under this master key
    ├── JwtRefused             a JWT that is not accepted
    └── Outage                 something that we depend on does not answer
        ├── StoreUnavailable   Postgres
        │   └── RowLocked      another transaction keeps a row locked
        ├── Overloaded         ourselves: more work waits than can be done in time
        ├── ProviderUnavailable  the upstream
        ├── IssuerUnavailable  an issuer of JWTs
        └── EnvoyUnavailable   Envoy's administration interface

A refusal is a value, an outage is an exception, a broken invariant is a crash.
"""


class MeterError(Exception):
    """The root of all. Catch it only where requests enter."""


class InvalidAmount(MeterError):
    """An amount that is not a decimal string of US dollars within the bounds of a ledger entry."""


class InvalidRequest(MeterError):
    """A command that cannot be carried out as it was given; the message says why."""


class UnknownReference(InvalidRequest):
    """A command that names a plan, user, key or issuer that does not exist."""


class NotFound(MeterError):
    """The named thing does not exist or belongs to another account; callers see no difference."""


class Conflict(MeterError):
    """The command contradicts what is already recorded, such as a reused idempotency key."""


class NotPermitted(MeterError):
    """The caller may not do this; the message says why."""


class BrokenInvariant(MeterError):
    """The books contradict themselves; no handler may swallow this."""


class SealBroken(MeterError):
    """A sealed secret does not open: another master key, another owner, or it was changed."""


class JwtRefused(MeterError):
    """A JWT that is not accepted. The reason is for operators; clients get none (rule R12)."""


class Outage(MeterError):
    """Something that we depend on does not answer; a retry may help."""


class StoreUnavailable(Outage):
    """Postgres does not answer, or refuses writes."""


class RowLocked(StoreUnavailable):
    """Another transaction keeps a row locked that is needed; other rows are not affected."""


class Overloaded(Outage):
    """More work waits than can be done in time, so this piece is not begun."""


class ProviderUnavailable(Outage):
    """The upstream does not answer, or its answer cannot be understood.

    `retry_after_s` is the wait that it asks for, None where it asks for none.
    """

    def __init__(self, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class UnreadableRecord(ProviderUnavailable):
    """The upstream's record names no amount that can be read: negative, text, null or absent."""


class IssuerUnavailable(Outage):
    """An issuer of JWTs does not answer, or its answer is not acceptable; the message says why."""


class EnvoyUnavailable(Outage):
    """Envoy's administration interface does not answer, or its answer cannot be understood."""
