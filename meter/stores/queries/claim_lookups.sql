-- Takes look-ups that are due, so that for a while nobody else takes them. One that was settled
-- meanwhile at the cost that was reported has nothing left to find out.
WITH due AS (
    SELECT hold_id FROM lookups WHERE due_at <= clock_timestamp()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE lookups l SET due_at = clock_timestamp() + $2::interval, attempts = l.attempts + 1
FROM due WHERE l.hold_id = due.hold_id
RETURNING l.hold_id, l.generation_id, l.reason, l.observed, l.attempts, l.is_decided,
          l.created_at,
          coalesce((SELECT h.created_at FROM holds h WHERE h.id = l.hold_id),
                   (SELECT h.placed_at FROM ended_holds h WHERE h.id = l.hold_id),
                   l.created_at) AS placed_at,
          l.deadline_at <= clock_timestamp() AS is_overdue,
          EXISTS (SELECT FROM holds h WHERE h.id = l.hold_id) AS is_live,
          EXISTS (
              SELECT FROM ended_holds h
              WHERE h.id = l.hold_id AND h.reason = 'settled'
                AND (l.reported_cost_picos IS NULL OR l.reported_cost_picos = (
                         SELECT sum(u.provider_cost_picos) FROM usage_records u
                         WHERE u.hold_id = h.id AND u.placed_at = h.placed_at))
          ) AS is_settled
