-- Forgets an issuer that no subject is known of.
DELETE FROM issuers WHERE id = $1
