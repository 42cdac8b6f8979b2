-- The classes of requests whose estimates are raised.
SELECT model_id, endpoint, factor_bps, raised_at, last_excess_at, excesses
FROM raised_estimates ORDER BY model_id, endpoint
