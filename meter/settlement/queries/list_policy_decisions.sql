-- Requests that a policy ended, newest hold first, after the one at ($1, $2), with their present
-- charge.
SELECT d.hold_id, d.placed_at, d.decided_at, d.account_id, d.model_id, d.is_charge, d.held_picos,
       d.charged_picos, d.charge_picos, d.rule, d.truths > 0 AS is_corrected, d.generation_id
FROM (
    SELECT found.*, now_known.charge_picos, now_known.truths
    FROM (
        (SELECT u.hold_id, u.placed_at, u.recorded_at AS decided_at, u.account_id, u.model_id,
                true AS is_charge, h.amount_picos AS held_picos,
                u.charge_picos AS charged_picos, u.generation_id,
                (SELECT split_part(p.reason, ': ', 2) FROM postings p
                 WHERE p.id = u.hold_id AND p.booked_at = u.placed_at) AS rule
         FROM usage_records u
         JOIN ended_holds h ON h.id = u.hold_id AND h.placed_at = u.placed_at
         WHERE u.kind = 'provisional'
           AND ($1::timestamptz IS NULL OR (u.placed_at, u.hold_id) < ($1, $2::uuid))
         ORDER BY u.placed_at DESC, u.hold_id DESC LIMIT $3)
        UNION ALL
        (SELECT h.id, h.placed_at, h.ended_at, h.account_id, h.model_id, false, h.amount_picos,
                0, NULL, 'not_reported'
         FROM ended_holds h
         WHERE h.reason = 'not_billed'
           AND ($1::timestamptz IS NULL OR (h.placed_at, h.id) < ($1, $2::uuid))
         ORDER BY h.placed_at DESC, h.id DESC LIMIT $3)
        UNION ALL
        (SELECT h.id, h.placed_at, h.ended_at, h.account_id, h.model_id, false, h.amount_picos,
                0, NULL, 'failed'
         FROM ended_holds h
         WHERE h.reason = 'failed'
           AND ($1::timestamptz IS NULL OR (h.placed_at, h.id) < ($1, $2::uuid))
         ORDER BY h.placed_at DESC, h.id DESC LIMIT $3)
    ) found
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(r.charge_picos), 0)::bigint AS charge_picos,
               count(*) FILTER (WHERE r.source <> 'policy') AS truths
        FROM usage_records r
        WHERE r.hold_id = found.hold_id AND r.placed_at = found.placed_at
    ) now_known
) d
ORDER BY d.placed_at DESC, d.hold_id DESC
LIMIT $3
