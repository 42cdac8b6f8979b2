-- Takes webhooks with messages that nobody else sends to, for $2 seconds.
UPDATE webhooks w SET taken_by = $1, taken_until = clock_timestamp() + make_interval(secs => $2)
FROM (SELECT k.id FROM webhooks k
      WHERE k.is_due AND k.next_attempt_at <= clock_timestamp()
        AND (k.taken_until IS NULL OR k.taken_until < clock_timestamp())
      ORDER BY k.next_attempt_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED) due
WHERE w.id = due.id
RETURNING w.id, w.account_id, w.url, w.sealed
