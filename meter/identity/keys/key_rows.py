"""Converts keys to rows of Postgres and back."""

import json

import asyncpg

from meter.identity.keys.key_rights import KeyRights
from meter.identity.keys.key_terms import KeyTerms
from meter.identity.keys.key_text import MintedKey
from meter.identity.principal import Budgets, Credential, CredentialKind, OwnKeyMode
from meter.limits.rate_rows import rate_columns, rates_of
from meter.postgres.rows import from_row
from meter.scopes import scopes_of


def new_columns(
    account_id: str, key: MintedKey, terms: KeyTerms, made_by: str
) -> tuple[object, ...]:
    """Return the parameters of the query `create_credential`."""
    return (key.credential_id, account_id, terms.name, key.prefix, *_columns(terms), made_by)


def saved_columns(key_id: str, terms: KeyTerms) -> tuple[object, ...]:
    """Return the parameters of the query `save_credential`."""
    return (key_id, terms.name, *_columns(terms))


def to_credential(row: asyncpg.Record) -> Credential:
    """Return the credential of a row."""
    return from_row(
        Credential,
        row,
        kind=CredentialKind(row["kind"]),
        scopes=scopes_of(row["scopes"]),
        allowed_models=_texts(row["allowed_models"]),
        allowed_addresses=_texts(row["allowed_addresses"]),
        rates=rates_of(row),
        budgets=Budgets(
            row["budget_day_picos"],
            row["budget_week_picos"],
            row["budget_month_picos"],
            row["budget_total_picos"],
        ),
        tags=json.loads(row["tags"]),
        own_key_mode=None if row["own_key_mode"] is None else OwnKeyMode(row["own_key_mode"]),
    )


def to_rights(row: asyncpg.Record, caller: Credential | None) -> KeyRights:
    """Return the rights of an account over its keys."""
    return KeyRights(
        now=row["now"],
        caller=caller,
        may_manage_keys=row["may_manage_keys"],
        is_suspended=row["is_suspended"],
        max_keys=row["max_keys"],
        live_keys=row["live_keys"],
        scopes=scopes_of(row["self_service_scopes"]),
        key_rates=rates_of(row),
        keys_of_a_day=row["keys_of_a_day"],
        changes_of_a_day=row["changes_of_a_day"],
    )


def _columns(terms: KeyTerms) -> tuple[object, ...]:
    budgets = terms.budgets
    return (
        sorted(terms.scopes),
        _list(terms.allowed_models),
        _list(terms.allowed_addresses),
        terms.expires_at,
        *rate_columns(terms.rates),
        budgets.day_picos,
        budgets.week_picos,
        budgets.month_picos,
        budgets.total_picos,
        json.dumps(dict(terms.tags)),
        terms.own_key_mode,
    )


def _list(items: tuple[str, ...] | None) -> list[str] | None:
    return None if items is None else list(items)


def _texts(items: list[str] | None) -> tuple[str, ...] | None:
    return None if items is None else tuple(items)
