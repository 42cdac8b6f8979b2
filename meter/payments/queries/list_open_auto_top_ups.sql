-- Automatic top-ups in flight, for those whose outcome is not known.
SELECT * FROM purchases WHERE kind = 'auto_top_up' AND state = 'open' AND is_live = $1
  AND created_at < clock_timestamp() - $2::interval
ORDER BY created_at LIMIT $3
