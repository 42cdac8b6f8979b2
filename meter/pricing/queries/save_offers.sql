-- Makes the offers of a provider those of its listing; one that is gone stays, and is not offered.
WITH offered AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[])
        AS o (model_id, upstream_name, context_length, max_completion_tokens)
), gone AS (
    UPDATE offers SET is_offered = false, updated_at = clock_timestamp()
    WHERE provider = $1 AND is_offered AND model_id NOT IN (SELECT model_id FROM offered)
)
INSERT INTO offers AS f (provider, model_id, upstream_name, context_length, max_completion_tokens)
SELECT $1, model_id, upstream_name, context_length, max_completion_tokens FROM offered
ON CONFLICT (provider, model_id) DO UPDATE SET
    upstream_name = excluded.upstream_name, context_length = excluded.context_length,
    max_completion_tokens = excluded.max_completion_tokens, is_offered = true,
    updated_at = clock_timestamp()
WHERE (f.upstream_name, f.context_length, f.max_completion_tokens, f.is_offered)
    IS DISTINCT FROM (excluded.upstream_name, excluded.context_length,
                      excluded.max_completion_tokens, true)
