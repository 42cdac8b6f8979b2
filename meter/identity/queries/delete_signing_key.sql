-- Removes a signing key at once: no pass that it signed is good from now on.
DELETE FROM signing_keys WHERE id = $1 RETURNING id
