-- Counts requests that wait for their usage, and requests that a policy decided meanwhile.
SELECT count(*) FILTER (WHERE NOT is_decided) AS waiting,
       count(*) FILTER (WHERE NOT is_decided AND generation_id IS NULL) AS without_generation_id,
       count(*) FILTER (WHERE NOT is_decided AND deadline_at < clock_timestamp()) AS overdue,
       count(*) FILTER (WHERE is_decided) AS decided,
       coalesce(max(attempts) FILTER (WHERE NOT is_decided), 0) AS most_attempts,
       floor(extract(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE NOT is_decided)))
           ::bigint AS oldest_seconds
FROM lookups
