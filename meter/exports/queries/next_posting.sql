-- The first posting of an account after a position.
SELECT p.seq, p.recorded_at FROM postings p WHERE p.account_id = $1 AND p.seq > $2
ORDER BY p.seq LIMIT 1
