-- Ends an attempt to compare a day that came to nothing.
UPDATE stripe_comparisons SET begun_at = NULL WHERE is_live = $1 AND day = $2
