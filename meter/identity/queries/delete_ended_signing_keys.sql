-- Deletes keys that no live pass was signed with.
DELETE FROM signing_keys WHERE published_until <= $1 RETURNING id
