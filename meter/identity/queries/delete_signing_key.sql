-- Removes a signing key at once: every pass that it signed is refused from now on.
DELETE FROM signing_keys WHERE id = $1 RETURNING id
