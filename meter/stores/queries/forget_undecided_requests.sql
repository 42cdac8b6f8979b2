-- Takes away undecided requests so old that no hold can still be waiting for them.
WITH gone AS (
    DELETE FROM undecided_requests WHERE seen_at < clock_timestamp() - $1::interval RETURNING 1
)
SELECT count(*) FROM gone
