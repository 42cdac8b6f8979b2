-- Own keys: keys of providers that accounts store and pay for themselves. The table `provider_keys`
-- has them under the id of the account.

-- Finds the keys of an account; the key of the house is found by its provider.
CREATE INDEX provider_keys_owner ON provider_keys (owner) WHERE owner <> 'system';

-- How an account uses its own keys; an account without a row prefers them.
CREATE TABLE own_key_terms (
    account_id              text PRIMARY KEY REFERENCES accounts (id),
    mode                    text NOT NULL CHECK (mode IN ('prefer', 'only', 'never')),
    -- Whether requests go out with our key, for credit, while the provider refuses the own key.
    may_fall_back_to_credit boolean NOT NULL
);

-- NULL: as the account has it.
ALTER TABLE credentials
    ADD COLUMN own_key_mode text CHECK (own_key_mode IN ('prefer', 'only', 'never'));

-- The part of the list price that requests with own keys are charged. Below a whole, because the
-- markup of such a hold is this less a whole, and a markup below zero is what marks an own key.
ALTER TABLE plan_versions
    ADD COLUMN own_key_fee_bps integer NOT NULL DEFAULT 0
        CHECK (own_key_fee_bps BETWEEN 0 AND 9999);

-- As before, with the new column of the versions.
CREATE OR REPLACE VIEW account_plans AS
SELECT a.id AS account_id, v.*
FROM accounts a
JOIN plans p ON p.id = a.plan_id
JOIN plan_versions v ON v.plan_id = p.id
 AND v.version = CASE WHEN a.plan_version IS NULL THEN p.current_version
                      ELSE greatest(a.plan_version, p.least_version) END;

-- As before, with the terms of own keys. An account may have the id under which the key of the house
-- is stored: that is no key of its own.
CREATE OR REPLACE VIEW live_principals AS
SELECT c.id AS credential_id, c.kind, c.account_id, a.plan_id, a.is_suspended, c.scopes,
       c.allowed_models, c.allowed_addresses, c.expires_at, c.issuer_id, c.subject,
       coalesce(a.markup_bps, p.markup_bps) AS markup_bps,
       coalesce(c.requests_per_minute, p.key_requests_per_minute) AS key_requests_per_minute,
       coalesce(c.tokens_per_minute, p.key_tokens_per_minute) AS key_tokens_per_minute,
       coalesce(c.concurrent_requests, p.key_concurrent_requests) AS key_concurrent_requests,
       coalesce(a.requests_per_minute, p.requests_per_minute) AS account_requests_per_minute,
       coalesce(a.tokens_per_minute, p.tokens_per_minute) AS account_tokens_per_minute,
       coalesce(a.concurrent_requests, p.concurrent_requests) AS account_concurrent_requests,
       coalesce(c.budget_day_picos, c.budget_week_picos, c.budget_month_picos,
                c.budget_total_picos) IS NOT NULL AS has_budget,
       coalesce(c.requests_per_day, p.key_requests_per_day) AS key_requests_per_day,
       coalesce(c.requests_per_month, p.key_requests_per_month) AS key_requests_per_month,
       coalesce(a.requests_per_day, p.requests_per_day) AS account_requests_per_day,
       coalesce(a.requests_per_month, p.requests_per_month) AS account_requests_per_month,
       a.id <> 'system' AND EXISTS (SELECT FROM provider_keys k
                                    WHERE k.owner = a.id AND k.owner <> 'system') AS has_own_keys,
       coalesce(c.own_key_mode, t.mode, 'prefer') AS own_key_mode,
       coalesce(t.may_fall_back_to_credit, false) AS may_fall_back_to_credit,
       p.own_key_fee_bps
FROM credentials c
JOIN accounts a ON a.id = c.account_id
JOIN account_plans p ON p.account_id = a.id
LEFT JOIN issuers i ON i.id = c.issuer_id
LEFT JOIN own_key_terms t ON t.account_id = a.id
WHERE c.revoked_at IS NULL
  AND c.suspended_at IS NULL
  AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp())
  AND (c.issuer_id IS NULL OR i.is_enabled);

-- As before, with the new column of credentials.
DROP VIEW listed_credentials;
CREATE VIEW listed_credentials AS
SELECT c.*, u.last_used_at,
       (SELECT max(s.ends_at) FROM credential_secrets s
        WHERE s.credential_id = c.id AND s.ends_at > clock_timestamp()) AS previous_ends_at
FROM credentials c
LEFT JOIN credential_uses u ON u.credential_id = c.id;

-- What a request with an own key cost its owner at the provider; NULL for requests with our key. The
-- house owes nothing for such a request, so it is in no posting.
ALTER TABLE usage_rows ADD COLUMN own_key_cost_picos bigint;
ALTER TABLE usage_days ADD COLUMN own_key_cost_picos bigint NOT NULL DEFAULT 0;

-- As before, with the cost under own keys. Ordinary settlements are of our keys only.
CREATE OR REPLACE VIEW usage_records AS
SELECT hold_id, placed_at, revision, kind, account_id, credential_id, model_id, endpoint,
       generation_id, started_at, recorded_at, prompt_tokens, completion_tokens, cached_tokens,
       cache_write_tokens, reasoning_tokens, provider_cost_picos, charge_picos, excess_picos,
       markup_bps, price_id, price_source, latency_ms, time_to_first_byte_ms, status_code,
       response_flags, is_streaming, source, seq, own_key_cost_picos
FROM usage_rows
UNION ALL
SELECT id, placed_at, 0::smallint, 'settlement', account_id, credential_id, model_id,
       coalesce(endpoint, 'chat_completions'), generation_id, started_at, recorded_at,
       prompt_tokens, completion_tokens, coalesce(cached_tokens, 0),
       coalesce(cache_write_tokens, 0), coalesce(reasoning_tokens, 0), provider_picos,
       -customer_picos, 0::bigint, markup_bps, price_id, coalesce(price_source, 'provider'),
       latency_ms, time_to_first_byte_ms, coalesce(status_code, 200),
       coalesce(response_flags, ''), is_streaming, coalesce(source, 'stream'), seq,
       NULL::bigint
FROM settlements;

-- As before, with the cost under own keys.
CREATE OR REPLACE FUNCTION add_up_usage_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS d
    SELECT n.account_id, (n.placed_at AT TIME ZONE 'UTC')::date, n.credential_id, n.model_id,
           false, count(*) FILTER (WHERE n.revision = 0), sum(n.prompt_tokens),
           sum(n.completion_tokens), sum(n.cached_tokens), sum(n.reasoning_tokens),
           sum(n.provider_cost_picos), sum(n.charge_picos),
           coalesce(sum(n.own_key_cost_picos), 0)
    FROM new_rows n
    GROUP BY 1, 2, 3, 4
    -- One order for all writers, so that no two wait for one another.
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (account_id, day, credential_id, model_id, is_ordinary) DO UPDATE SET
        requests = d.requests + excluded.requests,
        prompt_tokens = d.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = d.completion_tokens + excluded.completion_tokens,
        cached_tokens = d.cached_tokens + excluded.cached_tokens,
        reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
        provider_cost_picos = d.provider_cost_picos + excluded.provider_cost_picos,
        charge_picos = d.charge_picos + excluded.charge_picos,
        own_key_cost_picos = d.own_key_cost_picos + excluded.own_key_cost_picos;
    RETURN NULL;
END $$;

-- As before. A hold of a request with an own key has a markup below zero: its cost is not ours, so it
-- is no ordinary ending.
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
    with_lots   text[];
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
        WHERE h.id = t.id AND t.cost > 0 AND h.markup_bps >= 0
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
    with_lots := move_money(owners, taken, freed, nothing, spenders, days, spent, spent_freed);
    IF with_lots IS NOT NULL THEN
        PERFORM settle_lots(with_lots, account_ids, placed, charges);
    END IF;
    PERFORM seal_batch(chain, number, batched, signed, cardinality(settled_ids),
                       2 * cardinality(settled_ids) + with_revenue);
END $$;
