-- Deletes keys that have not signed yet, because another key takes their place.
DELETE FROM signing_keys WHERE signs_from > $1
