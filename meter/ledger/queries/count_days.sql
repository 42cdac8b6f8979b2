-- The number of rows about requests that were no ordinary settlements, by day, from $1 until $2.
SELECT date_trunc('day', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS day, count(*) AS rows
FROM (SELECT placed_at AS at FROM usage_rows WHERE placed_at >= $1 AND placed_at < $2
      UNION ALL
      SELECT placed_at FROM ended_hold_rows WHERE placed_at >= $1 AND placed_at < $2
      UNION ALL
      SELECT booked_at FROM posting_rows WHERE booked_at >= $1 AND booked_at < $2) rows
GROUP BY 1 ORDER BY 1
