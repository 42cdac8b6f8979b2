-- The days that were compared since a day, and the first of all.
SELECT (SELECT min(day) FROM stripe_comparisons
        WHERE is_live = $1 AND compared_at IS NOT NULL) AS first,
       ARRAY(SELECT day FROM stripe_comparisons
             WHERE is_live = $1 AND compared_at IS NOT NULL AND day >= $2) AS days
