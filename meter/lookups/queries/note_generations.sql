-- Remembers which generation answered a request whose hold is still live, or ended recently without
-- the truth, or was settled at another cost than is reported, and makes a look-up due; returns how
-- many of them that was news of. Where a log named another generation, the report is believed: it
-- has our tag.
WITH told AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[])
        AS t (hold_id, generation_id, cost_picos)
), wanted AS (
    SELECT t.hold_id, h.account_id, t.generation_id, t.cost_picos,
           coalesce(h.unknown_reason, 'reported') AS reason
    FROM told t JOIN holds h ON h.id = t.hold_id
    UNION ALL
    SELECT t.hold_id, h.account_id, t.generation_id, t.cost_picos, 'reported'
    FROM told t JOIN ended_holds h ON h.id = t.hold_id
    CROSS JOIN LATERAL (
        SELECT sum(u.provider_cost_picos) AS cost_picos,
               bool_or(u.source = 'lookup') AS has_record
        FROM usage_records u WHERE u.hold_id = h.id AND u.placed_at = h.placed_at
    ) known
    WHERE h.placed_at > clock_timestamp() - interval '7 days'
      AND known.has_record IS NOT TRUE
      AND (h.reason <> 'settled' OR known.cost_picos <> t.cost_picos)
), noted AS (
    INSERT INTO lookups AS l (hold_id, account_id, generation_id, reason, reported_cost_picos,
                              due_at, deadline_at)
    SELECT w.hold_id, w.account_id, w.generation_id, w.reason, w.cost_picos,
           clock_timestamp() + $4::interval, clock_timestamp() + $5::interval
    FROM wanted w ORDER BY w.hold_id
    ON CONFLICT (hold_id) DO UPDATE SET
        generation_id = excluded.generation_id,
        reported_cost_picos = excluded.reported_cost_picos, due_at = excluded.due_at,
        deadline_at = excluded.deadline_at
    WHERE l.generation_id IS DISTINCT FROM excluded.generation_id
    RETURNING 1
), heard AS (
    INSERT INTO report_feeds AS f (provider, heard_at)
    SELECT $6, clock_timestamp()
    WHERE EXISTS (SELECT FROM told t JOIN holds h ON h.id = t.hold_id)
       OR EXISTS (SELECT FROM told t JOIN ended_holds h ON h.id = t.hold_id
                  WHERE h.placed_at > clock_timestamp() - interval '7 days')
    ON CONFLICT (provider) DO UPDATE SET heard_at = excluded.heard_at
    WHERE f.heard_at < excluded.heard_at - interval '5 seconds'
)
SELECT count(*) FROM noted
