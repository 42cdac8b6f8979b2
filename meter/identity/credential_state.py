"""The facts that an explanation states about credentials and money, to operators only. Pure."""

from dataclasses import dataclass
from datetime import datetime

from meter.accounts.account import Funds
from meter.identity.principal import CredentialKind


@dataclass(frozen=True, slots=True)
class SecretState:
    """One secret of a key; `ends_at` is set while the key is being rotated."""

    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class PassState:
    """One pass: a JWT of our own."""

    expires_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class CredentialState:
    """The state of a credential, as the database has it at `now`.

    `secret` is None when the presented secret is not one of the key's, `presented_pass` when no
    pass was presented.
    """

    id: str
    kind: CredentialKind
    account_id: str
    name: str
    revoked_at: datetime | None
    suspended_at: datetime | None
    expires_at: datetime | None
    issuer_id: str | None
    is_issuer_enabled: bool
    secret: SecretState | None
    presented_pass: PassState | None
    now: datetime


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One budget in its present period; `whose` is `key` or `pass`."""

    whose: str
    period: str
    limit_picos: int
    spent_picos: int
    held_picos: int


@dataclass(frozen=True, slots=True)
class HoldFacts:
    """The facts that decide about a hold: money, budgets, and the number of running requests."""

    funds: Funds
    account_running: int
    key_running: int
    budgets: tuple[BudgetState, ...]


def find_fault(state: CredentialState) -> str | None:
    """Return why a credential is not live, as a clause after its name; None when it is live."""
    if state.revoked_at is not None:
        return f"was revoked at {_time(state.revoked_at)}"
    if state.suspended_at is not None:
        return f"is suspended since {_time(state.suspended_at)}"
    if state.expires_at is not None and state.expires_at <= state.now:
        return f"expired at {_time(state.expires_at)}"
    if not state.is_issuer_enabled:
        return f"belongs to the issuer {state.issuer_id}, which is switched off"
    if state.kind is CredentialKind.KEY and state.presented_pass is None:
        if state.secret is None:
            return "exists, but this is none of its secrets: rotated out, or never one of them"
        if state.secret.ends_at is not None and state.secret.ends_at <= state.now:
            return f"was rotated, and this secret ended at {_time(state.secret.ends_at)}"
    given = state.presented_pass
    if given is None:
        return None
    if given.revoked_at is not None:
        return f"is good, but the pass was revoked at {_time(given.revoked_at)}"
    if given.expires_at <= state.now:
        return f"is good, but the pass expired at {_time(given.expires_at)}"
    return None


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
