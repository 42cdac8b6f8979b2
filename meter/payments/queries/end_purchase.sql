-- Ends a purchase. One that was paid stays paid; one that ended unpaid may still be paid.
UPDATE purchases SET state = $2, reason = $3, ended_at = clock_timestamp()
WHERE id = $1 AND state <> 'paid' AND state <> $2
RETURNING id
