"""The rights of users over keys of their own account. Pure.

A caller that gets the secret of a key can do everything that the key may. So creating a key,
widening it, resuming it and rotating it are all judged by one question: may the caller itself
create the key as it is afterwards?
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import Final

from meter.errors import NotPermitted
from meter.identity.keys.key_terms import KeyTerms, Period, budget_of, has_ended
from meter.identity.principal import Budgets, Credential, CredentialKind
from meter.limits.limits import Rates
from meter.scopes import Scope

# Keys that the users of one account may create in 24 hours, those that they revoked included: ended
# keys and the audit log would else grow without end.
MOST_KEYS_A_DAY: Final = 1_000
# Changes, each a line in the audit log, that the users of one account may make on a day (UTC). What
# ends a key or a pass is always possible, and needs one of these before.
MOST_CHANGES_A_DAY: Final = 10_000
TOO_MANY_CHANGES: Final = (
    f"an account may change its keys and passes {MOST_CHANGES_A_DAY:,} times a day, and did; "
    "suspend or revoke keys, wait, or ask an administrator to make the change"
)
_GLOB_CHARS: Final = frozenset("*?[")


class KeyAct(StrEnum):
    """A kind of change to a key."""

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
    """The rights that administrators give an account, read at the moment of the change.

    `caller` is the credential that asks; None where it has ended. `live_keys` is the number of
    keys that are neither revoked nor expired at `now`. `keys_of_a_day` is the number that was
    created in the 24 hours before, counted up to MOST_KEYS_A_DAY, and `changes_of_a_day` the number
    of changes by its users on this day (UTC).
    """

    now: datetime
    caller: Credential | None
    may_manage_keys: bool
    is_suspended: bool
    max_keys: int
    live_keys: int
    scopes: frozenset[Scope]
    key_rates: Rates
    keys_of_a_day: int = 0
    changes_of_a_day: int = 0


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A change to a key. `before` is None for a new key; `after` are the terms it would get."""

    act: KeyAct
    before: Credential | None
    after: KeyTerms
    was_suspended_by_administrator: bool = False


@dataclass(frozen=True, slots=True)
class Administrator:
    """An administrator, who may make every change to keys."""


@dataclass(frozen=True, slots=True)
class SelfService:
    """A credential that changes keys of its own account.

    `scopes` are those of the request, which may be fewer than the credential's. `ends_at` is the
    end of the presented secret or JWT; a secret that was replaced by a rotation ends before its
    key.
    """

    caller_id: str
    scopes: frozenset[Scope]
    pass_id: str | None
    ends_at: datetime | None = None


# The party that asks for a change to a key.
KeyEditor = Administrator | SelfService


def permit(change: KeyChange, rights: KeyRights, editor: KeyEditor) -> None:
    """Raise NotPermitted with the reason if the editor may not make the change."""
    if isinstance(editor, Administrator):
        return
    caller = _require_caller(rights)
    is_own = change.before is not None and change.before.id == editor.caller_id
    if not rights.may_manage_keys and not (is_own and change.act in _ENDING):
        raise NotPermitted("the administrator manages the keys of this account")
    if change.act in _ENDING:
        return
    _require_may_widen(rights, caller, editor)
    if change.act is KeyAct.ROTATE and is_own:
        return
    if change.act is KeyAct.CHANGE and is_within(change, rights):
        return
    if is_own:
        raise NotPermitted("a key may narrow its own terms, but not widen them")
    _require_could_create(change, rights, caller, editor.scopes)


def permit_provider_keys(rights: KeyRights, editor: SelfService) -> None:
    """Raise NotPermitted if a credential may not store the account's keys of providers.

    Such a key serves all requests of the account, and its provider reads them: a credential that is
    restricted itself must not decide that.
    """
    caller = _require_caller(rights)
    if not rights.may_manage_keys:
        raise NotPermitted("the administrator manages the keys of this account")
    _require_may_widen(rights, caller, editor)
    is_restricted = caller.budgets != Budgets() or caller.rates != Rates()
    if is_restricted or caller.allowed_models is not None or caller.allowed_addresses is not None:
        raise NotPermitted(
            "a credential with a budget, limits, models or addresses of its own may not set"
            " provider keys, because they serve all requests of the account; use another"
        )


def permit_ending_provider_key(rights: KeyRights, _editor: SelfService) -> None:
    """Raise NotPermitted if a credential may not delete the account's keys of providers."""
    _require_caller(rights)
    if not rights.may_manage_keys:
        raise NotPermitted("the administrator manages the keys of this account")


def _require_caller(rights: KeyRights) -> Credential:
    if rights.caller is None:
        raise NotPermitted("the credential that was presented has ended")
    return rights.caller


def _require_may_widen(rights: KeyRights, caller: Credential, editor: SelfService) -> None:
    """Raise NotPermitted unless the credential may make changes that end nothing."""
    if rights.changes_of_a_day >= MOST_CHANGES_A_DAY:
        raise NotPermitted(TOO_MANY_CHANGES)
    if editor.pass_id is not None:
        raise NotPermitted(
            "a pass may suspend or revoke keys, but not create, change, resume or rotate them"
        )
    # A replaced secret must not get a way to outlive its end, or end the new secret.
    is_key = caller.kind is CredentialKind.KEY
    if is_key and not _ends_by(caller.expires_at, editor.ends_at):
        raise NotPermitted(
            "a secret that a rotation replaced may only suspend or revoke keys; use the new secret"
        )
    if rights.is_suspended:
        raise NotPermitted("the account is suspended")


def _require_could_create(
    change: KeyChange, rights: KeyRights, caller: Credential, scopes: frozenset[Scope]
) -> None:
    """Raise NotPermitted unless the caller itself may create the key as it is afterwards.

    `scopes` are those of the request.
    """
    if change.was_suspended_by_administrator:
        raise NotPermitted(
            "an administrator suspended this key; only an administrator can resume it"
        )
    if caller.budgets != Budgets() or caller.rates != Rates():
        raise NotPermitted(
            "a key with a budget or limits of its own may not create or widen keys, because "
            "their spending would not count against it"
        )
    is_counted = change.before is not None and not has_ended(change.before, rights.now)
    if not is_counted and rights.live_keys >= rights.max_keys:
        raise NotPermitted(
            f"the plan allows {rights.max_keys} keys that are neither revoked nor expired"
        )
    if change.act is KeyAct.CREATE and rights.keys_of_a_day >= MOST_KEYS_A_DAY:
        raise NotPermitted(
            f"an account may create {MOST_KEYS_A_DAY:,} keys in 24 hours, and has created as many; "
            "wait, or ask an administrator to create the key"
        )
    after = change.after
    # The claims of a JWT of another issuer set its scopes. A key may have lost scopes since
    # the request was authenticated, so both sets count.
    own = scopes & caller.scopes if caller.kind is CredentialKind.KEY else scopes
    for allowed, whose in (
        (rights.scopes, "the plan lets users give"),
        (own, "the caller has"),
    ):
        beyond = sorted(after.scopes - allowed)
        if beyond:
            raise NotPermitted(f"the key would have more scopes than {whose}: {', '.join(beyond)}")
    if not are_models_within(after.allowed_models, caller.allowed_models):
        raise NotPermitted("the key would be allowed models that the caller is not")
    if not are_addresses_within(after.allowed_addresses, caller.allowed_addresses):
        raise NotPermitted("the key would work from addresses where the caller does not")
    if caller.own_key_mode not in (None, after.own_key_mode):
        raise NotPermitted("the key would use the account's provider keys as the caller may not")
    if not _ends_by(after.expires_at, caller.expires_at):
        raise NotPermitted("the key would outlive the caller")
    if not _are_rates_within(after.rates, Rates(), rights.key_rates):
        raise NotPermitted("the limits of the key are above those of the plan")


def is_within(change: KeyChange, rights: KeyRights) -> bool:
    """Return whether a change gives a key no right that it lacks now."""
    if change.before is None:
        return False
    before, after = KeyTerms.of(change.before), change.after
    return (
        after.scopes <= before.scopes
        and after.own_key_mode == before.own_key_mode
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
    """Return whether every model that `wanted` allows is allowed by `allowed`, too.

    A pattern in `wanted` must stand in `allowed` itself: patterns are not compared by meaning.
    """
    if wanted is None or allowed is None:
        return allowed is None
    return all(
        one in allowed
        or (_GLOB_CHARS.isdisjoint(one) and any(fnmatchcase(one, pattern) for pattern in allowed))
        for one in wanted
    )


def are_addresses_within(wanted: Sequence[str] | None, allowed: Sequence[str] | None) -> bool:
    """Return whether every network of `wanted` lies within a network of `allowed`."""
    if wanted is None or allowed is None:
        return allowed is None
    networks = [ip_network(one) for one in allowed]
    # The type checker cannot see that networks of one version are of one class.
    return all(
        any(
            one.version == network.version and one.subnet_of(network)  # type: ignore[arg-type]
            for network in networks
        )
        for one in map(ip_network, wanted)
    )


def _ends_by(wanted: datetime | None, latest: datetime | None) -> bool:
    return latest is None or (wanted is not None and wanted <= latest)


def _are_rates_within(wanted: Rates, before: Rates, plan: Rates) -> bool:
    """Return whether no limit is higher than before; a key without a limit has the plan's."""
    return all(
        _is_at_most(new if new is not None else plans, old if old is not None else plans)
        for new, old, plans in zip(astuple(wanted), astuple(before), astuple(plan), strict=True)
    )


def _is_at_most(wanted: int | None, most: int | None) -> bool:
    return most is None or (wanted is not None and wanted <= most)
