-- A settled request writes less of the write-ahead log: the usual value of a column is stored as
-- NULL, which takes no room: settle_holds() of the next migration. Views show the values. What was
-- settled before keeps its form: both forms are signed as they are stored.

ALTER TABLE settlements
    ALTER COLUMN flat_cost_picos DROP NOT NULL, ALTER COLUMN cached_tokens DROP NOT NULL,
    ALTER COLUMN cache_write_tokens DROP NOT NULL, ALTER COLUMN reasoning_tokens DROP NOT NULL,
    ALTER COLUMN status_code DROP NOT NULL, ALTER COLUMN endpoint DROP NOT NULL,
    ALTER COLUMN response_flags DROP NOT NULL, ALTER COLUMN price_source DROP NOT NULL,
    ALTER COLUMN source DROP NOT NULL;
ALTER TABLE kept_settlements
    ALTER COLUMN flat_cost_picos DROP NOT NULL, ALTER COLUMN cached_tokens DROP NOT NULL,
    ALTER COLUMN cache_write_tokens DROP NOT NULL, ALTER COLUMN reasoning_tokens DROP NOT NULL,
    ALTER COLUMN status_code DROP NOT NULL, ALTER COLUMN endpoint DROP NOT NULL,
    ALTER COLUMN response_flags DROP NOT NULL, ALTER COLUMN price_source DROP NOT NULL,
    ALTER COLUMN source DROP NOT NULL;

CREATE OR REPLACE VIEW usage_records AS
SELECT hold_id, placed_at, revision, kind, account_id, credential_id, model_id, endpoint,
       generation_id, started_at, recorded_at, prompt_tokens, completion_tokens, cached_tokens,
       cache_write_tokens, reasoning_tokens, provider_cost_picos, charge_picos, excess_picos,
       markup_bps, price_id, price_source, latency_ms, time_to_first_byte_ms, status_code,
       response_flags, is_streaming, source
FROM usage_rows
UNION ALL
SELECT id, placed_at, 0::smallint, 'settlement', account_id, credential_id, model_id,
       coalesce(endpoint, 'chat_completions'), generation_id, started_at, recorded_at,
       prompt_tokens, completion_tokens, coalesce(cached_tokens, 0),
       coalesce(cache_write_tokens, 0), coalesce(reasoning_tokens, 0), provider_picos,
       -customer_picos, 0::bigint, markup_bps, price_id, coalesce(price_source, 'provider'),
       latency_ms, time_to_first_byte_ms, coalesce(status_code, 200),
       coalesce(response_flags, ''), is_streaming, coalesce(source, 'stream')
FROM settlements;

CREATE OR REPLACE VIEW ended_holds AS
SELECT id, placed_at, account_id, credential_id, model_id, endpoint, price_id, markup_bps,
       amount_picos, flat_cost_picos, max_tokens, request_id, state, reason, ended_at, pass_id
FROM ended_hold_rows
UNION ALL
SELECT id, placed_at, account_id, credential_id, model_id, coalesce(endpoint, 'chat_completions'),
       price_id, markup_bps, held_picos, coalesce(flat_cost_picos, 0), max_tokens, request_id,
       'settled', 'settled', recorded_at, pass_id
FROM settlements;

-- As before; it looks for the row of the day before it adds one, because the attempt to add a row
-- that is there locks it, with a record in the log for each.
CREATE OR REPLACE FUNCTION move_spending(
    subjects text[], placed timestamptz[], charges bigint[], freed bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH moved AS (
        SELECT u.subject, (u.placed AT TIME ZONE 'UTC')::date AS day, sum(u.charge)::bigint AS charge
        FROM unnest(subjects, placed, charges) AS u (subject, placed, charge)
        WHERE u.charge <> 0
        GROUP BY 1, 2
    ), added AS (
        UPDATE key_days k SET charge_picos = k.charge_picos + m.charge
        FROM moved m WHERE k.credential_id = m.subject AND k.day = m.day
        RETURNING k.credential_id, k.day
    )
    INSERT INTO key_days AS k (credential_id, day, charge_picos)
    SELECT m.subject, m.day, m.charge FROM moved m
    JOIN credentials c ON c.id = m.subject
    WHERE NOT EXISTS (SELECT FROM added a WHERE a.credential_id = m.subject AND a.day = m.day)
    ON CONFLICT (credential_id, day)
        DO UPDATE SET charge_picos = k.charge_picos + excluded.charge_picos;
    IF NOT EXISTS (SELECT FROM spending s WHERE s.subject = ANY (subjects)) THEN
        RETURN;
    END IF;
    UPDATE spending s SET
        spent_picos = s.spent_picos + m.charge,
        held_picos = s.held_picos - m.freed
    FROM (
        SELECT u.subject, p.period, period_start(p.period, u.placed) AS starts_on,
               sum(u.charge)::bigint AS charge, sum(u.freed)::bigint AS freed
        FROM unnest(subjects, placed, charges, freed) AS u (subject, placed, charge, freed)
        CROSS JOIN (VALUES ('day'), ('week'), ('month'), ('total')) AS p (period)
        GROUP BY 1, 2, 3
    ) m
    WHERE s.subject = m.subject AND s.period = m.period AND s.starts_on = m.starts_on;
END $$;
