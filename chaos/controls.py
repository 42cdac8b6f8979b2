"""Negative controls: one rule switched off, after which the checker must find something."""

from collections.abc import Mapping
from typing import Final

import asyncpg

from chaos.schedule import Fault
from chaos.stack import ChaosStack

RULES: Final = ("file", "unique", "lookup")

_SETTINGS: Final[dict[str, dict[str, str]]] = {
    "file": {"TOLLKEEPER_ENVOY_ACCESS_LOG": "", "TOLLKEEPER_PROVIDER_REPORTS": "false"},
    "lookup": {"TOLLKEEPER_LOOKUPS_PER_SECOND": "0"},
}
# No unique key, and an ending that leaves the hold as live as it was: the second arrival of the
# same ending meets nothing that says so.
_NOT_UNIQUE: Final = """
    ALTER TABLE accounts DROP CONSTRAINT accounts_held_picos_check,
                         DROP CONSTRAINT accounts_never_overspent;
    CREATE OR REPLACE FUNCTION end_holds(hold_ids uuid[], states text[], reasons text[])
    RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        INSERT INTO ended_hold_rows (id, placed_at, account_id, credential_id, model_id, endpoint,
                                 price_id, markup_bps, amount_picos, flat_cost_picos,
                                 max_tokens, request_id, state, reason)
        SELECT h.id, h.created_at, h.account_id, h.credential_id, h.model_id, h.endpoint,
               h.price_id, h.markup_bps, h.amount_picos, h.flat_cost_picos, h.max_tokens,
               h.request_id, e.state, e.reason
        FROM holds h JOIN unnest(hold_ids, states, reasons) AS e (id, state, reason)
            ON e.id = h.id;
        RETURN cardinality(hold_ids);
    END $$;
    -- No ending is ordinary, so that all of them take the way above.
    DO $$
    DECLARE
        named regproc := 'settle_holds'::regproc;
    BEGIN
        EXECUTE (SELECT replace(pg_get_functiondef(named), prosrc,
                                'BEGIN settled_ids := ''{}''; END')
                 FROM pg_proc WHERE oid = named);
    END $$;
    DO $$
    DECLARE
        key record;
    BEGIN
        FOR key IN
            SELECT conrelid::regclass AS relation, conname FROM pg_constraint
            WHERE contype IN ('p', 'u') AND conparentid = 0 AND conrelid IN (
                'usage_rows'::regclass, 'posting_rows'::regclass, 'entry_rows'::regclass,
                'ended_hold_rows'::regclass)
        LOOP
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', key.relation, key.conname);
        END LOOP;
    END $$;
    """


def settings_without(rule: str | None) -> Mapping[str, str]:
    """Return the settings of the stack without a rule; none where the rule is not a setting."""
    return _SETTINGS.get(rule or "", {})


async def break_rule(stack: ChaosStack, rule: str | None) -> None:
    """Take the rule out of a fresh database, where that is where it lives."""
    if rule == "unique":
        connection = await asyncpg.connect(stack.dsn())
        try:
            await connection.execute(_NOT_UNIQUE)
        finally:
            await connection.close()


def control_faults(rule: str, load_s: float) -> list[Fault]:
    """The fault that this rule is there for, and no other."""
    match rule:
        case "file":
            return [Fault(0.5, "sever_stream", (), load_s, 0)]
        case "unique":
            moments = [load_s * part / 8 for part in range(2, 8)]
            return [Fault(at_s, "replay_stream", (), 0.0, 0) for at_s in moments]
    return []
