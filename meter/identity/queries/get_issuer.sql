-- One issuer, with the number of its known subjects.
SELECT i.id, i.url, i.terms, i.is_enabled, i.keys, i.keys_fetched_at, i.created_at, i.updated_at,
       (SELECT count(*) FROM credentials c WHERE c.issuer_id = i.id) AS identities
FROM issuers i WHERE i.id = $1
