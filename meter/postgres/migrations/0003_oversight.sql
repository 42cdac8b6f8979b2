-- What reconciliation compares with a provider's own total, and what lists of policy decisions
-- are read by.

-- What a key was billed that is not in these books lies between the two: what is in flight, or
-- was charged by policy, makes them differ (meter/drift.py).
ALTER TABLE provider_totals
    ADD COLUMN outside_least_picos numeric NOT NULL,
    ADD COLUMN outside_most_picos  numeric NOT NULL,
    ADD CHECK (outside_least_picos <= outside_most_picos);

CREATE INDEX provider_totals_key ON provider_totals (provider, key_version, id);

-- Hardly a row is in these two: they cost the others nothing.
CREATE INDEX usage_records_provisional ON usage_records (placed_at, hold_id)
    WHERE kind = 'provisional';
CREATE INDEX ended_holds_not_billed ON ended_holds (placed_at, id)
    WHERE reason = 'not_billed';

-- Nobody adds to a month while it is sealed and dropped: what came in between would be in neither.
CREATE FUNCTION lock_month(wanted_kind text, month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    partition text;
BEGIN
    FOR partition IN
        SELECT h.parent || '_' || to_char(month, 'YYYY_MM') FROM history_tables() h
        WHERE h.kind = wanted_kind ORDER BY 1
    LOOP
        IF to_regclass(partition) IS NOT NULL THEN
            EXECUTE format('LOCK TABLE %I IN SHARE MODE', partition);
        END IF;
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION lock_month(text, date) FROM PUBLIC;
