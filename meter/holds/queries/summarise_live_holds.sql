-- The number of live holds by state, and by the reason for unknown usage.
SELECT state, unknown_reason, count(*) AS holds,
       floor(extract(epoch FROM clock_timestamp() - min(created_at)))::bigint AS oldest_seconds
FROM holds
GROUP BY state, unknown_reason
