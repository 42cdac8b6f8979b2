-- Takes look-ups of the accounts $5 that are due, so that for a while nobody else takes them: one of
-- each account, then a second one, and so on. One that was settled meanwhile at the cost that was
-- reported has nothing left to find out.
WITH in_turn AS (
    SELECT t.hold_id, row_number() OVER (PARTITION BY a.place ORDER BY t.due_at) AS turn, a.place
    FROM unnest($5::text[]) WITH ORDINALITY AS a (account_id, place)
    CROSS JOIN LATERAL (
        SELECT l.hold_id, l.due_at FROM lookups l
        WHERE l.account_id = a.account_id AND l.due_at <= statement_timestamp()
        ORDER BY l.due_at LIMIT $1
    ) t
), due AS (
    SELECT l.hold_id FROM lookups l JOIN in_turn t ON t.hold_id = l.hold_id
    WHERE l.due_at <= statement_timestamp()
    ORDER BY t.turn, t.place LIMIT $1
    FOR UPDATE OF l SKIP LOCKED
), claimed AS (
    UPDATE lookups l SET due_at = clock_timestamp() + $2::interval, attempts = l.attempts + 1
    FROM due WHERE l.hold_id = due.hold_id
    RETURNING l.*
)
SELECT l.hold_id, l.generation_id, l.observed, l.attempts, l.is_decided, l.created_at,
       coalesce(l.observed ->> 'provider', p.provider, $3) AS provider,
       coalesce(live.created_at, ended.placed_at, l.created_at) AS placed_at,
       l.deadline_at <= clock_timestamp() AS is_overdue,
       live.id IS NOT NULL AS is_live,
       CASE WHEN coalesce(live.markup_bps, ended.markup_bps) < 0
            THEN coalesce(live.account_id, ended.account_id) END AS own_key_of,
       l.reason = 'zero_record' AS is_watched,
       coalesce(ended.reason = 'settled' AND l.reason <> 'zero_record' AND (
           l.reported_cost_picos IS NULL OR l.reported_cost_picos = (
               SELECT sum(u.provider_cost_picos) FROM usage_records u
               WHERE u.hold_id = ended.id AND u.placed_at = ended.placed_at)), false) AS is_settled,
       coalesce((SELECT f.heard_at FROM report_feeds f WHERE f.provider = $3)
           > coalesce(live.created_at, ended.placed_at) - $4::interval, false)
           AND coalesce(l.observed ->> 'provider', p.provider, $3) = $3
           -- Without a tag in the body, no report leads to the hold.
           AND coalesce(live.endpoint, ended.endpoint, '') <> ALL ($6::text[]) AS has_reports
FROM claimed l
LEFT JOIN holds live ON live.id = l.hold_id
LEFT JOIN ended_holds ended ON ended.id = l.hold_id
LEFT JOIN prices p ON p.id = coalesce(live.price_id, ended.price_id)
