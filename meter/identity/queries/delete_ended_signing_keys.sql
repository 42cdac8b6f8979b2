-- Forgets keys whose last pass is over.
DELETE FROM signing_keys WHERE published_until <= $1 RETURNING id
