-- Opens the shop: all checks have passed. Returns nothing where it was open.
UPDATE go_lives SET passed_at = clock_timestamp(), passed_by = $2
WHERE is_live = $1 AND passed_at IS NULL
RETURNING passed_at
