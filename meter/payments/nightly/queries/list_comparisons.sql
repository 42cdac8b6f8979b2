-- Reports, latest day first, before the one at ($1, $2).
SELECT is_live, day, compared_at, differences, report FROM stripe_comparisons
WHERE compared_at IS NOT NULL
  AND ($1::date IS NULL OR (day, is_live) < ($1, $2::boolean))
ORDER BY day DESC, is_live DESC LIMIT $3
