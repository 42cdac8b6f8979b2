-- Takes open purchases that nobody has looked at for a while, and notes the look.
UPDATE purchases SET checked_at = clock_timestamp()
WHERE id IN (
    SELECT id FROM purchases
    WHERE state = 'open' AND is_live = $1 AND checked_at < clock_timestamp() - $2::interval
    ORDER BY checked_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING *
