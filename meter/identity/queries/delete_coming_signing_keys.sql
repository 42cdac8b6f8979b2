-- Forgets keys that have not signed yet: another takes their place.
DELETE FROM signing_keys WHERE signs_from > $1
