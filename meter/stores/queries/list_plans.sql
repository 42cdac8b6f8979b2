-- All plans.
SELECT id, name, markup_bps, requests_per_minute FROM plans ORDER BY id
