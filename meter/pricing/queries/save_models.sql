-- Inserts or updates the models that a provider's listing defines, and unlists its models that are
-- no longer offered. OpenRouter's listing takes a model over; another provider's takes over only
-- what nobody lists.
WITH offered AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::jsonb[],
                         $6::integer[])
        AS o (id, name, context_length, max_completion_tokens, listing, unasked_searches)
), unlisted AS (
    UPDATE models SET is_listed = false, updated_at = clock_timestamp()
    WHERE is_listed AND source = $7 AND id NOT IN (SELECT id FROM offered)
)
INSERT INTO models AS m (id, name, context_length, max_completion_tokens, listing,
                         unasked_searches, source)
SELECT id, name, context_length, max_completion_tokens, listing, unasked_searches, $7 FROM offered
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, context_length = excluded.context_length,
    max_completion_tokens = excluded.max_completion_tokens, listing = excluded.listing,
    unasked_searches = excluded.unasked_searches, is_listed = true, source = excluded.source,
    updated_at = clock_timestamp()
WHERE (m.name, m.context_length, m.max_completion_tokens, m.listing, m.unasked_searches,
       m.is_listed, m.source)
    IS DISTINCT FROM (excluded.name, excluded.context_length, excluded.max_completion_tokens,
                      excluded.listing, excluded.unasked_searches, true, excluded.source)
  AND (m.source = excluded.source OR NOT m.is_listed OR excluded.source = 'openrouter')
