-- Takes look-ups that are due, so that for a while nobody else takes them.
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
          l.reason <> 'disputed' AND EXISTS (
              SELECT FROM ended_holds h
              WHERE h.id = l.hold_id AND h.reason = 'settled') AS is_settled
