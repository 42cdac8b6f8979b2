-- Appends all entries of some postings in one statement, as the balance trigger requires.
INSERT INTO entries (posting_id, line, ledger_account, account_id, amount_picos)
SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::bigint[])
