-- Raises the estimates of classes to what their requests cost; returns those that are raised now.
-- The factor of a hold is the one that was in force when it was placed.
WITH seen AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[])
        AS s (model_id, endpoint, ratio_bps, placed_at)
), needed AS (
    SELECT s.model_id, s.endpoint, count(*) AS excesses,
           least(max(ceil(s.ratio_bps::numeric / 10000 *
               CASE WHEN r.model_id IS NULL THEN 10000
                    WHEN s.placed_at > r.raised_at + $5::interval THEN r.factor_bps
                    ELSE r.previous_factor_bps END)), $6)::integer AS factor_bps
    FROM seen s LEFT JOIN raised_estimates r USING (model_id, endpoint)
    GROUP BY s.model_id, s.endpoint
), raised AS (
    INSERT INTO raised_estimates AS r (model_id, endpoint, factor_bps, excesses)
    SELECT model_id, endpoint, factor_bps, excesses FROM needed ORDER BY model_id, endpoint
    ON CONFLICT (model_id, endpoint) DO UPDATE SET
        excesses = r.excesses + excluded.excesses,
        last_excess_at = clock_timestamp(),
        previous_factor_bps =
            CASE WHEN excluded.factor_bps > r.factor_bps
                      AND r.raised_at < clock_timestamp() - $5::interval
                 THEN r.factor_bps ELSE r.previous_factor_bps END,
        raised_at = CASE WHEN excluded.factor_bps > r.factor_bps
                         THEN clock_timestamp() ELSE r.raised_at END,
        factor_bps = greatest(r.factor_bps, excluded.factor_bps)
    RETURNING r.model_id, r.endpoint, r.factor_bps, r.raised_at
)
SELECT model_id, endpoint, factor_bps FROM raised WHERE raised_at >= statement_timestamp()
