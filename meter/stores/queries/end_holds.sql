-- Ends live holds, each with its own ending.
UPDATE holds h SET state = e.state, ended_at = clock_timestamp()
FROM unnest($1::uuid[], $2::text[]) AS e (id, state)
WHERE h.id = e.id AND h.ended_at IS NULL
