-- Begins to compare a day, unless a meter does so at this moment. Without $4, a day that was
-- compared before is left alone.
INSERT INTO stripe_comparisons AS c (is_live, day, begun_at) VALUES ($1, $2, clock_timestamp())
ON CONFLICT (is_live, day) DO UPDATE SET begun_at = clock_timestamp()
WHERE (c.begun_at IS NULL OR c.begun_at < clock_timestamp() - $3::interval)
  AND ($4 OR c.compared_at IS NULL)
RETURNING day
