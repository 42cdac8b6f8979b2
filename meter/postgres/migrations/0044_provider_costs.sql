-- What the house owes each provider but OpenRouter, by account: so that what OpenRouter says it
-- billed is compared with its own part of the ledger. A row for each account, not one for all.
CREATE TABLE provider_costs (
    provider   text NOT NULL,
    account_id text NOT NULL,
    cost_picos numeric NOT NULL,
    PRIMARY KEY (provider, account_id)
);

-- As before, with the costs by provider. Ordinary settlements are of OpenRouter only: no other
-- provider names its costs.
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
    INSERT INTO provider_costs AS c
    SELECT p.provider, n.account_id, sum(n.provider_cost_picos)
    FROM new_rows n
    JOIN prices p ON p.id = n.price_id AND p.provider <> 'openrouter'
    WHERE n.own_key_cost_picos IS NULL
    GROUP BY 1, 2
    ORDER BY 1, 2
    ON CONFLICT (provider, account_id) DO UPDATE SET cost_picos = c.cost_picos + excluded.cost_picos;
    RETURN NULL;
END $$;
