"""What users may do with their own keys: never more than they may do themselves. Pure.

Whoever holds a secret of a key can do what the key may. So making a key, widening it, letting it
live again and minting a secret for it all ask the same: could the caller have made it so?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import Final, Protocol

from meter.errors import NotPermitted
from meter.identity.keys.key_terms import KeyTerms, Period, budget_of, has_ended
from meter.identity.principal import Budgets, Credential, CredentialKind
from meter.limits.limits import Rates
from meter.network import Network
from meter.scopes import Scope

_GLOB_CHARS: Final = frozenset("*?[")


class KeyAct(StrEnum):
    """What is done to a key."""

    CREATE = "create"
    CHANGE = "change"
    ROTATE = "rotate"
    RESUME = "resume"
    SUSPEND = "suspend"
    REVOKE = "revoke"
    END_PREVIOUS_SECRET = "end_previous_secret"


_ENDING: Final = frozenset({KeyAct.SUSPEND, KeyAct.REVOKE, KeyAct.END_PREVIOUS_SECRET})


@dataclass(frozen=True, slots=True)
class KeyRights:
    """What an administrator allows, as of the moment of the change.

    `caller` is the credential that asks, None where it has ended meanwhile. `live_keys` counts
    those that are neither revoked nor expired at `now`.
    """

    now: datetime
    caller: Credential | None
    may_manage_keys: bool
    is_suspended: bool
    max_keys: int
    live_keys: int
    scopes: frozenset[Scope]
    key_rates: Rates


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One act: on what key it is, None for a new one, and what the key would be afterwards."""

    act: KeyAct
    before: Credential | None
    after: KeyTerms
    was_suspended_by_administrator: bool = False


class Guard(Protocol):
    """Who asks, and what stands against it."""

    @property
    def caller_id(self) -> str | None:
        """The credential that asks, where it is bound by its own terms."""
        ...

    def check(self, change: KeyChange, rights: KeyRights) -> None:
        """Raises NotPermitted with the reason."""
        ...


class Administrator:
    """Administrators may do everything with keys."""

    caller_id = None

    def check(self, change: KeyChange, rights: KeyRights) -> None:
        """Nothing stands against it."""


@dataclass(frozen=True, slots=True)
class SelfService:
    """An account's own credential. `scopes` are those it was presented with; `ends_at` is when what
    was presented ends, which for a secret that is rotated away is before the key does.
    """

    caller_id: str
    scopes: frozenset[Scope]
    pass_id: str | None
    ends_at: datetime | None = None

    def check(self, change: KeyChange, rights: KeyRights) -> None:
        """Raises NotPermitted with the reason."""
        if rights.caller is None:
            raise NotPermitted("the credential that was presented has ended")
        is_own = change.before is not None and change.before.id == self.caller_id
        if not rights.may_manage_keys and not (is_own and change.act in _ENDING):
            raise NotPermitted("the administrator manages the keys of this account")
        if change.act in _ENDING:
            return
        if self.pass_id is not None:
            raise NotPermitted("a pass may end keys, but not make, change, resume or rotate them")
        if self._is_rotated_away(rights.caller):
            raise NotPermitted(
                "a secret that is rotated away may end keys; for all else use the new one"
            )
        if rights.is_suspended:
            raise NotPermitted("the account is suspended")
        if change.act is KeyAct.ROTATE and is_own:
            return
        if change.act is KeyAct.CHANGE and is_within(change, rights):
            return
        if is_own:
            raise NotPermitted("a key may narrow what it may do itself, and not widen it")
        self._demand_could_make(change, rights, rights.caller)

    def _is_rotated_away(self, caller: Credential) -> bool:
        """Whoever has such a secret must not outlive its end, or shut the new one out."""
        return caller.kind is CredentialKind.KEY and not _ends_by(caller.expires_at, self.ends_at)

    def _demand_could_make(self, change: KeyChange, rights: KeyRights, caller: Credential) -> None:
        if change.was_suspended_by_administrator:
            raise NotPermitted("an administrator suspended this key, and can resume it")
        if caller.budgets != Budgets() or caller.rates != Rates():
            raise NotPermitted(
                "a key with a budget or limits of its own may not make or widen keys, "
                "which would have theirs besides"
            )
        _demand_room(change, rights)
        # What a JWT of another issuer may, its claims say; a key may lose scopes meanwhile.
        own = self.scopes & caller.scopes if caller.kind is CredentialKind.KEY else self.scopes
        _demand_scopes(change.after.scopes, rights.scopes, own)
        _demand_terms(change.after, KeyTerms.of(caller))
        if not _are_rates_within(change.after.rates, Rates(), rights.key_rates):
            raise NotPermitted("the limits of the key are above those of the plan")


def is_within(change: KeyChange, rights: KeyRights) -> bool:
    """Whether a key may do nothing afterwards that it may not do now."""
    if change.before is None:
        return False
    before, after = KeyTerms.of(change.before), change.after
    return (
        after.scopes <= before.scopes
        and are_models_within(after.allowed_models, before.allowed_models)
        and are_addresses_within(after.allowed_addresses, before.allowed_addresses)
        and _ends_by(after.expires_at, before.expires_at)
        and _are_rates_within(after.rates, before.rates, rights.key_rates)
        and all(
            _is_at_most(budget_of(after.budgets, period), budget_of(before.budgets, period))
            for period in Period
        )
    )


def are_models_within(wanted: Sequence[str] | None, allowed: Sequence[str] | None) -> bool:
    """Whether one list of models and patterns permits nothing that another does not.

    A pattern must be in the other list itself: whether one pattern covers another is not judged.
    """
    if wanted is None or allowed is None:
        return allowed is None
    return all(_is_model_within(one, allowed) for one in wanted)


def are_addresses_within(wanted: Sequence[str] | None, allowed: Sequence[str] | None) -> bool:
    """Whether every network of one list lies in one of another."""
    if wanted is None or allowed is None:
        return allowed is None
    networks = [ip_network(one) for one in allowed]
    return all(_is_network_within(ip_network(one), networks) for one in wanted)


def _is_model_within(wanted: str, allowed: Sequence[str]) -> bool:
    if wanted in allowed:
        return True
    if not _GLOB_CHARS.isdisjoint(wanted):
        return False
    return any(fnmatchcase(wanted, pattern) for pattern in allowed)


def _is_network_within(wanted: Network, allowed: Sequence[Network]) -> bool:
    # The type checker cannot see that networks of one version are of one class.
    return any(
        wanted.version == one.version and wanted.subnet_of(one)  # type: ignore[arg-type]
        for one in allowed
    )


def _demand_room(change: KeyChange, rights: KeyRights) -> None:
    counts_already = change.before is not None and not has_ended(change.before, rights.now)
    if not counts_already and rights.live_keys >= rights.max_keys:
        raise NotPermitted(
            f"the plan allows {rights.max_keys} keys that are neither revoked nor expired"
        )


def _demand_scopes(wanted: frozenset[Scope], plan: frozenset[Scope], own: frozenset[Scope]) -> None:
    for allowed, whose in ((plan, "the plan lets users give"), (own, "the caller has")):
        beyond = sorted(wanted - allowed)
        if beyond:
            raise NotPermitted(f"the key would have more scopes than {whose}: {', '.join(beyond)}")


def _demand_terms(wanted: KeyTerms, own: KeyTerms) -> None:
    if not are_models_within(wanted.allowed_models, own.allowed_models):
        raise NotPermitted("the key would be allowed models that the caller is not")
    if not are_addresses_within(wanted.allowed_addresses, own.allowed_addresses):
        raise NotPermitted("the key would work from addresses where the caller does not")
    if not _ends_by(wanted.expires_at, own.expires_at):
        raise NotPermitted("the key would outlive the caller")


def _ends_by(wanted: datetime | None, latest: datetime | None) -> bool:
    return latest is None or (wanted is not None and wanted <= latest)


def _are_rates_within(wanted: Rates, before: Rates, plan: Rates) -> bool:
    """A key without a limit of its own has the plan's."""
    return all(
        _is_at_most(new if new is not None else plans, old if old is not None else plans)
        for new, old, plans in (
            (wanted.requests_per_minute, before.requests_per_minute, plan.requests_per_minute),
            (wanted.tokens_per_minute, before.tokens_per_minute, plan.tokens_per_minute),
            (wanted.concurrent_requests, before.concurrent_requests, plan.concurrent_requests),
        )
    )


def _is_at_most(wanted: int | None, most: int | None) -> bool:
    return most is None or (wanted is not None and wanted <= most)
