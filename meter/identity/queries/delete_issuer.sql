-- Deletes an issuer that has no known subject.
DELETE FROM issuers WHERE id = $1
