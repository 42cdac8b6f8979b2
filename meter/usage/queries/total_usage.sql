-- An account's usage by day, model or credential, between two instants. Holds are placed moments
-- before Envoy's start of the request; a day bounds the difference of the clocks.
SELECT grouped.key AS group_key, count(*) FILTER (WHERE u.revision = 0) AS requests,
       sum(u.prompt_tokens) AS prompt_tokens, sum(u.completion_tokens) AS completion_tokens,
       sum(u.cached_tokens) AS cached_tokens, sum(u.reasoning_tokens) AS reasoning_tokens,
       sum(u.provider_cost_picos) AS provider_cost_picos, sum(u.charge_picos) AS charge_picos
FROM usage_records u
CROSS JOIN LATERAL (
    SELECT CASE $2::text
        WHEN 'day' THEN to_char(u.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')
        WHEN 'model' THEN u.model_id
        ELSE u.credential_id
    END AS key
) grouped
WHERE u.account_id = $1 AND u.started_at >= $3 AND u.started_at < $4
  AND u.placed_at >= $3::timestamptz - interval '1 day'
  AND u.placed_at < $4::timestamptz + interval '1 day'
  AND ($5::text IS NULL OR grouped.key > $5)
GROUP BY grouped.key
ORDER BY grouped.key
LIMIT $6
