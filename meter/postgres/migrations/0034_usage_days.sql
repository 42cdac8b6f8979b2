-- Totals of usage by day, so that adding up a period reads days and not requests. A record counts
-- on the day of UTC on which its hold was placed, and so do its corrections. The totals of a month
-- stay when its records are dropped.

CREATE TABLE usage_days (
    account_id          text NOT NULL,
    day                 date NOT NULL,
    credential_id       text NOT NULL,
    model_id            text NOT NULL,
    -- Ordinary settlements are added later, by a task of the meter; all other records by the
    -- transaction that writes them. Each has rows of its own, so that neither waits for the other.
    is_ordinary         boolean NOT NULL,
    requests            bigint NOT NULL,
    prompt_tokens       bigint NOT NULL,
    completion_tokens   bigint NOT NULL,
    cached_tokens       bigint NOT NULL,
    reasoning_tokens    bigint NOT NULL,
    provider_cost_picos bigint NOT NULL,
    charge_picos        bigint NOT NULL,
    PRIMARY KEY (account_id, day, credential_id, model_id, is_ordinary)
) WITH (fillfactor = 70);

-- Settlements of batches up to `batch` are in the totals. Every settlement of a later batch has a
-- `seq` above this one, by which the index of an account finds it.
CREATE TABLE usage_position (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    batch   bigint NOT NULL,
    seq     bigint NOT NULL
) WITH (fillfactor = 30);

-- Nobody settles until the commit. In the order of settlements: chains before tables.
DO $$
BEGIN
    PERFORM id FROM ledger_chains ORDER BY id FOR NO KEY UPDATE;
    LOCK TABLE settlements, usage_rows IN SHARE ROW EXCLUSIVE MODE;
END $$;

INSERT INTO usage_days
SELECT account_id, (placed_at AT TIME ZONE 'UTC')::date, credential_id, model_id, true, count(*),
       sum(prompt_tokens), sum(completion_tokens), coalesce(sum(cached_tokens), 0),
       coalesce(sum(reasoning_tokens), 0), sum(provider_picos), -sum(customer_picos)
FROM settlements GROUP BY 1, 2, 3, 4
UNION ALL
SELECT account_id, (placed_at AT TIME ZONE 'UTC')::date, credential_id, model_id, false,
       count(*) FILTER (WHERE revision = 0), sum(prompt_tokens), sum(completion_tokens),
       sum(cached_tokens), sum(reasoning_tokens), sum(provider_cost_picos), sum(charge_picos)
FROM usage_rows GROUP BY 1, 2, 3, 4;

INSERT INTO usage_position (batch, seq)
SELECT CASE WHEN b.is_called THEN b.last_value ELSE b.last_value - 1 END,
       CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END
FROM ledger_batch_numbers b, postings_position s;

-- Adds records that are no ordinary settlements to the totals.
CREATE FUNCTION add_up_usage_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS d
    SELECT n.account_id, (n.placed_at AT TIME ZONE 'UTC')::date, n.credential_id, n.model_id,
           false, count(*) FILTER (WHERE n.revision = 0), sum(n.prompt_tokens),
           sum(n.completion_tokens), sum(n.cached_tokens), sum(n.reasoning_tokens),
           sum(n.provider_cost_picos), sum(n.charge_picos)
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
        charge_picos = d.charge_picos + excluded.charge_picos;
    RETURN NULL;
END $$;

CREATE TRIGGER usage_rows_add_up AFTER INSERT ON usage_rows
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION add_up_usage_rows();

-- Adds the settlements of the batches after `after`, up to `up_to`, to the totals: of the holds that
-- were placed in this time.
CREATE FUNCTION add_up_settlements(
    after bigint, up_to bigint, opens timestamptz, closes timestamptz
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO usage_days AS d
    SELECT s.account_id, (s.placed_at AT TIME ZONE 'UTC')::date, s.credential_id, s.model_id, true,
           count(*), sum(s.prompt_tokens), sum(s.completion_tokens),
           coalesce(sum(s.cached_tokens), 0), coalesce(sum(s.reasoning_tokens), 0),
           sum(s.provider_picos), -sum(s.customer_picos)
    FROM settlements s
    WHERE s.batch > after AND s.batch <= up_to AND s.placed_at >= opens AND s.placed_at < closes
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (account_id, day, credential_id, model_id, is_ordinary) DO UPDATE SET
        requests = d.requests + excluded.requests,
        prompt_tokens = d.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = d.completion_tokens + excluded.completion_tokens,
        cached_tokens = d.cached_tokens + excluded.cached_tokens,
        reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
        provider_cost_picos = d.provider_cost_picos + excluded.provider_cost_picos,
        charge_picos = d.charge_picos + excluded.charge_picos
$$;

-- As before. The settlements of the month leave the usage with it, so those that are not in the
-- totals by day are added now. The caller lets nobody add to the month.
CREATE OR REPLACE FUNCTION seal_usage(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    opens  timestamptz := month::timestamp AT TIME ZONE 'UTC';
    closes timestamptz := (month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
    after  bigint;
BEGIN
    INSERT INTO sealed_usage (month, account_id, requests, prompt_tokens, completion_tokens,
                              provider_cost_picos, charge_picos, excess_picos)
    SELECT seal_usage.month, u.account_id, count(*) FILTER (WHERE u.revision = 0),
           sum(u.prompt_tokens), sum(u.completion_tokens), sum(u.provider_cost_picos),
           sum(u.charge_picos), sum(u.excess_picos)
    FROM usage_records u WHERE u.placed_at >= opens AND u.placed_at < closes
    GROUP BY u.account_id;
    -- Nobody moves the position until the commit.
    SELECT p.batch INTO after FROM usage_position p FOR UPDATE;
    PERFORM add_up_settlements(after, 9223372036854775807, opens, closes);
    INSERT INTO dropped_months (kind, month, last_batch)
    SELECT 'usage', seal_usage.month, coalesce(max(p.batch), 0)
    FROM postings p WHERE p.booked_at >= opens AND p.booked_at < closes;
END $$;
