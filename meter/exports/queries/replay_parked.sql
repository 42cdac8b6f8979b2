-- Has parked events sent again: the one at $2, or all; returns how many.
WITH marked AS (UPDATE parked_events SET is_replayed = true
                WHERE sink_id = $1 AND ($2::bigint IS NULL OR position = $2) RETURNING 1)
SELECT count(*) FROM marked
