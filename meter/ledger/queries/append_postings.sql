-- Appends postings with their entries to the chained ledger: see append_postings() in the
-- migrations.
SELECT append_postings($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
