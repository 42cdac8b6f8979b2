-- Appends postings; their entries follow in the same transaction.
INSERT INTO postings (id, template, account_id, hold_id, reason)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[])
