-- Marks live holds of requests that ended without usage as unknown, and makes a look-up due. A
-- second arrival may add the generation id to ask for.
WITH known AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::jsonb[],
                         $7::interval[], $8::interval[])
        AS k (id, reason, generation_id, status_code, response_flags, observed, first_delay,
              patience)
), marked AS (
    UPDATE holds h SET
        state = 'unknown', unknown_reason = k.reason,
        generation_id = coalesce(k.generation_id, h.generation_id),
        status_code = k.status_code, response_flags = k.response_flags
    FROM known k WHERE h.id = k.id
)
INSERT INTO lookups AS l (hold_id, account_id, generation_id, reason, observed, due_at, deadline_at)
SELECT k.id,
       coalesce((SELECT h.account_id FROM holds h WHERE h.id = k.id),
                (SELECT e.account_id FROM ended_holds e WHERE e.id = k.id), '-'),
       k.generation_id, k.reason, k.observed,
       clock_timestamp() + CASE WHEN k.generation_id IS NULL THEN k.patience ELSE k.first_delay END,
       clock_timestamp() + k.patience
FROM known k ORDER BY k.id
ON CONFLICT (hold_id) DO UPDATE SET
    generation_id = coalesce(l.generation_id, excluded.generation_id),
    observed = coalesce(excluded.observed, l.observed),
    due_at = CASE WHEN l.generation_id IS NULL THEN excluded.due_at ELSE l.due_at END,
    deadline_at = excluded.deadline_at
