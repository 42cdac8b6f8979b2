-- Accepts what a listing says, so that the next equal listing is believed at once.
UPDATE catalogue_doubts SET accepted_at = coalesce(accepted_at, clock_timestamp())
WHERE id = $1 RETURNING provider, subject, explanation
