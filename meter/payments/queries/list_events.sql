-- Stripe's events, newest first, older than the row $2; in one state where $1 names one.
SELECT * FROM stripe_events
WHERE ($1::text IS NULL OR state = $1) AND ($2::bigint IS NULL OR seq < $2)
ORDER BY seq DESC LIMIT $3
