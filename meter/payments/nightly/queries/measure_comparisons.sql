-- The differences of the days since one that nobody has cleared up, and the last compared day.
SELECT coalesce(sum(differences) FILTER (WHERE day >= $2), 0)::bigint AS differences,
       max(day) AS last_day
FROM stripe_comparisons WHERE is_live = $1 AND compared_at IS NOT NULL
