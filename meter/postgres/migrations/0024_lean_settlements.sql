-- A settled request writes less of the write-ahead log: the usual value of a column is stored as
-- NULL, which takes no room. Views show the values. What was settled before keeps its form: both
-- forms are signed as they are stored.

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

-- As before; it stores NULL for usual values.
CREATE OR REPLACE FUNCTION settle_holds(
    hold_ids         uuid[],
    costs            bigint[],
    generation_ids   text[],
    starts           timestamptz[],
    prompts          bigint[],
    completions      bigint[],
    cached           bigint[],
    cache_writes     bigint[],
    reasonings       bigint[],
    latencies_ms     integer[],
    first_bytes_ms   integer[],
    status_codes     integer[],
    flags            text[],
    streaming        boolean[],
    sources          text[],
    doubted          text[],
    -- A column for each fact about the holds that were settled.
    OUT settled_ids    uuid[],
    OUT account_ids    text[],
    OUT model_ids      text[],
    OUT endpoints      text[],
    OUT price_ids      bigint[],
    OUT markups_bps    integer[],
    OUT amounts        bigint[],
    OUT max_tokens     bigint[],
    OUT placed         timestamptz[],
    OUT counted_tokens bigint[],
    OUT token_buckets  text[]
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET lock_timeout = '200ms' SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    chain       ledger_chains;
    number      bigint;
    batched     timestamptz;
    signed      bytea;
    charges     bigint[];
    credentials text[];
    passes      text[];
    with_revenue bigint;
    owners      text[];
    taken       bigint[];
    freed       bigint[];
    nothing     bigint[];
    spenders    text[];
    days        timestamptz[];
    spent       bigint[];
    spent_freed bigint[];
BEGIN
    chain := take_chain();
    number := nextval('ledger_batch_numbers');
    batched := clock_timestamp();
    WITH gone AS (
        DELETE FROM holds h
        -- Functions of sets in FROM would store each column apart first.
        USING (SELECT unnest(hold_ids) AS id, unnest(costs) AS cost,
                      unnest(generation_ids) AS generation, unnest(starts) AS started,
                      unnest(prompts) AS prompt, unnest(completions) AS completion,
                      unnest(cached) AS cached, unnest(cache_writes) AS cache_write,
                      unnest(reasonings) AS reasoning, unnest(latencies_ms) AS latency,
                      unnest(first_bytes_ms) AS first_byte, unnest(status_codes) AS status,
                      unnest(flags) AS flags, unnest(streaming) AS is_streaming,
                      unnest(sources) AS source) t
        WHERE h.id = t.id AND t.cost > 0
          AND div(t.cost::numeric * (10000 + h.markup_bps) + 9999, 10000) <= h.amount_picos
          AND h.account_id <> ALL (doubted)
        RETURNING h.*, t.cost, t.generation, t.started, t.prompt, t.completion,
                  t.cached, t.cache_write, t.reasoning, t.latency, t.first_byte, t.status,
                  t.flags, t.is_streaming, t.source,
                  div(t.cost::numeric * (10000 + h.markup_bps) + 9999, 10000)::bigint AS charge
    ), booked AS (
        INSERT INTO settlements (
            id, placed_at, batch, recorded_at, started_at, request_id, price_id, held_picos,
            flat_cost_picos, max_tokens, customer_picos, provider_picos, revenue_picos,
            prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
            markup_bps, latency_ms, time_to_first_byte_ms, status_code, is_streaming, account_id,
            credential_id, pass_id, model_id, endpoint, generation_id, response_flags,
            price_source, source)
        SELECT g.id, g.created_at, number, batched, g.started, g.request_id, g.price_id,
               g.amount_picos, nullif(g.flat_cost_picos, 0), g.max_tokens, -g.charge, g.cost,
               g.charge - g.cost, g.prompt, g.completion, nullif(g.cached, 0),
               nullif(g.cache_write, 0), nullif(g.reasoning, 0), g.markup_bps, g.latency,
               g.first_byte, nullif(g.status, 200), g.is_streaming, g.account_id,
               g.credential_id, g.pass_id, g.model_id, nullif(g.endpoint, 'chat_completions'),
               g.generation, nullif(g.flags, ''), NULL, nullif(g.source, 'stream')
        FROM gone g
        RETURNING settlements.id, settlement_record(settlements) AS record
    )
    SELECT array_agg(g.id), array_agg(g.account_id), array_agg(g.credential_id),
           array_agg(g.pass_id), array_agg(g.model_id), array_agg(g.endpoint),
           array_agg(g.price_id), array_agg(g.markup_bps), array_agg(g.amount_picos),
           array_agg(g.max_tokens), array_agg(g.created_at), array_agg(g.counted_tokens),
           array_agg(array_to_string(g.token_buckets, ' ')), array_agg(g.charge),
           count(*) FILTER (WHERE g.charge > g.cost),
           (SELECT string_agg(b.record, '' ORDER BY b.id) FROM booked b)
    INTO settled_ids, account_ids, credentials, passes, model_ids, endpoints, price_ids,
         markups_bps, amounts, max_tokens, placed, counted_tokens, token_buckets, charges,
         with_revenue, signed
    FROM gone g;
    IF settled_ids IS NULL THEN
        settled_ids := '{}';
        RETURN;
    END IF;
    SELECT array_agg(m.account), array_agg(m.charge), array_agg(m.amount), array_agg(0::bigint)
    INTO owners, taken, freed, nothing
    FROM (SELECT u.account, sum(u.charge)::bigint AS charge, sum(u.amount)::bigint AS amount
          FROM unnest(account_ids, charges, amounts) AS u (account, charge, amount)
          GROUP BY u.account) m;
    -- Periods of budgets begin with a day of UTC, so the day of a hold says which it counts in.
    SELECT array_agg(m.spender), array_agg(m.day AT TIME ZONE 'UTC'), array_agg(m.charge),
           array_agg(m.amount)
    INTO spenders, days, spent, spent_freed
    FROM (SELECT s.spender, date_trunc('day', u.placed AT TIME ZONE 'UTC') AS day,
                 sum(u.charge)::bigint AS charge, sum(u.amount)::bigint AS amount
          FROM unnest(credentials, passes, placed, charges, amounts)
              AS u (credential, pass, placed, charge, amount)
          CROSS JOIN LATERAL (VALUES (u.credential), (u.pass)) AS s (spender)
          WHERE s.spender IS NOT NULL
          GROUP BY 1, 2) m;
    PERFORM move_money(owners, taken, freed, nothing, spenders, days, spent, spent_freed);
    PERFORM seal_batch(chain, number, batched, signed, cardinality(settled_ids),
                       2 * cardinality(settled_ids) + with_revenue);
END $$;

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
