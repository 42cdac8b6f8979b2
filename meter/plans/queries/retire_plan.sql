-- Sells a plan no more; no row where it was retired before.
UPDATE plans SET retired_at = clock_timestamp() WHERE id = $1 AND retired_at IS NULL RETURNING id
