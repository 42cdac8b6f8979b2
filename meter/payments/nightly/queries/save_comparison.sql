-- Keeps the report of a day, in the place of an earlier one.
UPDATE stripe_comparisons SET begun_at = NULL, compared_at = clock_timestamp(), differences = $3,
    report = $4
WHERE is_live = $1 AND day = $2
RETURNING is_live, day, compared_at, differences, report
