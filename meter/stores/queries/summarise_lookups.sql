-- How many requests wait until their usage is found out.
SELECT count(*) AS waiting,
       count(*) FILTER (WHERE generation_id IS NULL) AS without_generation_id,
       count(*) FILTER (WHERE deadline_at < clock_timestamp()) AS overdue,
       coalesce(max(attempts), 0) AS most_attempts,
       floor(extract(epoch FROM clock_timestamp() - min(created_at)))::bigint AS oldest_seconds
FROM lookups
