"""The kinds of files, their columns, and the part of the books that one file has. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from meter.money import PICOS_PER_CENT, format_usd

# A file ends there; its last line has the cursor with which the next one goes on.
MOST_ROWS: Final = 1_000_000


class ExportKind(StrEnum):
    """The parts of the books that files have."""

    USAGE = "usage"
    TRANSACTIONS = "transactions"
    PAYMENTS = "payments"
    INVOICES = "invoices"


class Form(StrEnum):
    """The forms of values in a file."""

    TEXT = "text"
    PLAIN = "plain"
    INSTANT = "instant"
    PICOS = "picos"
    CENTS = "cents"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: its name there, the column of the row, and the form of the value."""

    name: str
    source: str
    form: Form = Form.PLAIN
    # Administrators alone see what a provider billed.
    is_for_administrators: bool = False

    def value(self, row: Mapping[str, Any]) -> object:
        """Return the value in the file: money as a decimal string, instants in UTC."""
        value = row[self.source]
        if value is None:
            return None
        match self.form:
            case Form.PICOS:
                return format_usd(int(value))
            case Form.CENTS:
                return format_usd(int(value) * PICOS_PER_CENT)
            case Form.INSTANT:
                return format_instant(value)
            case Form.TEXT:
                return str(value)
        return value


_COLUMNS: Final[Mapping[ExportKind, tuple[Column, ...]]] = {
    ExportKind.USAGE: (
        Column("id", "hold_id", Form.TEXT),
        Column("revision", "revision"),
        Column("kind", "kind", Form.TEXT),
        Column("started_at", "started_at", Form.INSTANT),
        Column("recorded_at", "recorded_at", Form.INSTANT),
        Column("user_id", "account_id", Form.TEXT),
        Column("key_id", "credential_id", Form.TEXT),
        Column("model", "model_id", Form.TEXT),
        Column("endpoint", "endpoint", Form.TEXT),
        Column("generation_id", "generation_id", Form.TEXT),
        Column("prompt_tokens", "prompt_tokens"),
        Column("completion_tokens", "completion_tokens"),
        Column("cached_tokens", "cached_tokens"),
        Column("cache_write_tokens", "cache_write_tokens"),
        Column("reasoning_tokens", "reasoning_tokens"),
        Column("charge", "charge_picos", Form.PICOS),
        Column("own_key_cost", "own_key_cost_picos", Form.PICOS),
        Column("provider_cost", "provider_cost_picos", Form.PICOS, is_for_administrators=True),
        Column("latency_ms", "latency_ms"),
        Column("status_code", "status_code"),
        Column("is_streaming", "is_streaming"),
        Column("request_id", "request_id", Form.TEXT),
    ),
    ExportKind.TRANSACTIONS: (
        Column("id", "id", Form.TEXT),
        Column("at", "recorded_at", Form.INSTANT),
        Column("type", "template", Form.TEXT),
        Column("user_id", "account_id", Form.TEXT),
        Column("amount", "amount_picos", Form.PICOS),
        Column("reason", "reason", Form.TEXT),
        Column("model", "model_id", Form.TEXT),
        Column("key_id", "credential_id", Form.TEXT),
        Column("prompt_tokens", "prompt_tokens"),
        Column("completion_tokens", "completion_tokens"),
        Column("generation_id", "generation_id", Form.TEXT),
        Column("request_id", "request_id", Form.TEXT),
    ),
    ExportKind.PAYMENTS: (
        Column("id", "id", Form.TEXT),
        Column("paid_at", "paid_at", Form.INSTANT),
        Column("user_id", "account_id", Form.TEXT),
        Column("paid", "paid_cents", Form.CENTS),
        Column("credited", "credited_picos", Form.PICOS),
        Column("reversed", "reversed_picos", Form.PICOS),
        Column("is_live", "is_live"),
        Column("receipt_url", "receipt_url", Form.TEXT),
    ),
    ExportKind.INVOICES: (
        Column("id", "id", Form.TEXT),
        Column("paid_at", "paid_at", Form.INSTANT),
        Column("user_id", "account_id", Form.TEXT),
        Column("subscription_id", "subscription_id", Form.TEXT),
        Column("plan", "plan_id", Form.TEXT),
        Column("paid", "paid_cents", Form.CENTS),
        Column("credited", "credited_picos", Form.PICOS),
        Column("period_end", "period_end", Form.INSTANT),
    ),
}
# The last row of a page by these columns is where the next page begins.
_KEYS: Final[Mapping[ExportKind, tuple[str, ...]]] = {
    ExportKind.USAGE: ("started_at", "hold_id", "revision"),
    ExportKind.TRANSACTIONS: ("seq",),
    ExportKind.PAYMENTS: ("seq",),
    ExportKind.INVOICES: ("paid_at", "id"),
}

# An account, and the key of its last row as text; no key before its first row.
Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Export:
    """The content of one file: of one account or of all, from an instant up to another."""

    kind: ExportKind
    account_id: str | None
    since: datetime
    until: datetime
    is_for_administrators: bool
    after: Place | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the columns that the reader may see."""
        return tuple(
            column
            for column in _COLUMNS[self.kind]
            if self.is_for_administrators or not column.is_for_administrators
        )

    def place_of(self, row: Mapping[str, Any]) -> Place:
        """Return the place of a row, after which a later file can go on."""
        key = (row[name] for name in _KEYS[self.kind])
        texts = (one.isoformat() if isinstance(one, datetime) else str(one) for one in key)
        return (row["account_id"], *texts)


def format_instant(instant: datetime) -> str:
    """Return an instant in UTC as RFC 3339 with a Z."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
