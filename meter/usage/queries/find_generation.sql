-- The hold of an account's request by the provider's id of the generation, or by Envoy's id of the
-- request ($3): among the latest $6 records of each kind that began between two instants. No index
-- has these ids: a settlement would pay for it. Holds are placed moments before the request begins
-- for Envoy; a day bounds the difference.
SELECT hold_id, placed_at FROM (
    (SELECT s.id AS hold_id, s.placed_at, s.generation_id, s.request_id
     FROM settlements s
     WHERE s.account_id = $1 AND s.started_at BETWEEN $4 AND $5
       AND s.placed_at BETWEEN $4::timestamptz - interval '1 day'
                           AND $5::timestamptz + interval '1 day'
     ORDER BY s.started_at DESC
     LIMIT $6)
    UNION ALL
    (SELECT u.hold_id, u.placed_at, u.generation_id,
            CASE WHEN $3::uuid IS NOT NULL THEN (
                SELECT e.request_id FROM ended_hold_rows e
                WHERE e.id = u.hold_id AND e.placed_at = u.placed_at) END
     FROM usage_rows u
     WHERE u.account_id = $1 AND u.started_at BETWEEN $4 AND $5
       AND u.placed_at BETWEEN $4::timestamptz - interval '1 day'
                           AND $5::timestamptz + interval '1 day'
     ORDER BY u.started_at DESC
     LIMIT $6)
) latest
WHERE generation_id = $2 OR request_id = $3
LIMIT 1
