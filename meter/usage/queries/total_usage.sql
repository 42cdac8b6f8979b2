-- An account's usage by day, model or credential, from one day to another: the totals by day, and
-- the settlements that are not in them yet.
SELECT grouped.key AS group_key, sum(u.requests) AS requests,
       sum(u.prompt_tokens) AS prompt_tokens, sum(u.completion_tokens) AS completion_tokens,
       sum(u.cached_tokens) AS cached_tokens, sum(u.reasoning_tokens) AS reasoning_tokens,
       sum(u.provider_cost_picos) AS provider_cost_picos, sum(u.charge_picos) AS charge_picos,
       sum(u.own_key_cost_picos) AS own_key_cost_picos
FROM (
    SELECT d.day, d.model_id, d.credential_id, d.requests, d.prompt_tokens, d.completion_tokens,
           d.cached_tokens, d.reasoning_tokens, d.provider_cost_picos, d.charge_picos,
           d.own_key_cost_picos
    FROM usage_days d
    WHERE d.account_id = $1 AND d.day BETWEEN $3 AND $4
    UNION ALL
    SELECT (s.placed_at AT TIME ZONE 'UTC')::date, s.model_id, s.credential_id, 1,
           s.prompt_tokens, s.completion_tokens, coalesce(s.cached_tokens, 0),
           coalesce(s.reasoning_tokens, 0), s.provider_picos, -s.customer_picos, 0
    FROM settlements s
    WHERE s.account_id = $1
      AND s.seq > (SELECT seq FROM usage_position) AND s.batch > (SELECT batch FROM usage_position)
      AND s.placed_at >= $3::timestamp AT TIME ZONE 'UTC'
      AND s.placed_at < ($4::date + 1)::timestamp AT TIME ZONE 'UTC'
) u
CROSS JOIN LATERAL (
    SELECT CASE $2::text
        WHEN 'day' THEN to_char(u.day, 'YYYY-MM-DD')
        WHEN 'model' THEN u.model_id
        ELSE u.credential_id
    END AS key
) grouped
WHERE $5::text IS NULL OR grouped.key > $5
GROUP BY grouped.key
ORDER BY grouped.key
LIMIT $6
